"""``python -m florence2.server``: the same as ``florence2 serve``."""

import sys

from florence2.cli.app import main as run


def main() -> None:
    """Serve as the command line does."""
    run(["serve", *sys.argv[1:]])


if __name__ == "__main__":
    main()
