"""``python -m florence2.server``: the same as ``florence2 serve``."""

import sys

from florence2.cli.app import main

if __name__ == "__main__":
    main(["serve", *sys.argv[1:]])
