"""``python -m florence2.cli``: the same as ``florence2``."""

from florence2.cli.app import main

if __name__ == "__main__":
    main()
