"""``python -m florence2``: the same as ``florence2``."""

from __future__ import annotations

from florence2.cli import main

if __name__ == "__main__":
    main()
