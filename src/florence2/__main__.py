"""The program ``florence2``, also as ``python -m florence2``."""

from __future__ import annotations

import sys

INTERRUPTED = 130  # as in console.py, which is imported where it can be interrupted itself


def main() -> None:
    """Run the command line; Ctrl-C ends it without a word from the first moment on."""
    try:
        from florence2.cli import main as run
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    run()


if __name__ == "__main__":
    main()
