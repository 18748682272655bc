"""``python -m florence2.server``: the same as ``florence2 serve``."""

from __future__ import annotations

import typer

from florence2.console import program
from florence2.server.command import serve


def main() -> None:
    """Serve, and tell errors in one line."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(serve)
    with program():
        app(prog_name="florence2 serve")


if __name__ == "__main__":
    main()
