"""``python -m florence2.server``: the same as ``florence2 serve``."""

from __future__ import annotations

import sys

import typer

from florence2.errors import Florence2Error, InvalidRequest
from florence2.server.command import serve


def main() -> None:
    """Serve, and tell errors in one line."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(serve)
    try:
        app(prog_name="florence2 serve")
    except Florence2Error as error:
        print(f"florence2: {error.message}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InvalidRequest) else 1)


if __name__ == "__main__":
    main()
