"""Where keys and usage are kept on this machine, unless a setting says otherwise.

In: an operating system's idea of a user's data. Out: paths. Makes none of them, and knows nothing of what is in them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

FILE_NAME = "accounts.sqlite"


def data_folder() -> Path:
    """The folder for what this user's programs keep."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Application Support"
    else:
        base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser() / "florence2"


def default_database() -> str:
    """The URL of the database that is used where none is named."""
    return f"sqlite:///{data_folder() / FILE_NAME}"


def has_default_database() -> bool:
    """Whether it is there: whoever makes a key makes it."""
    try:
        return (data_folder() / FILE_NAME).is_file()
    except (OSError, RuntimeError):  # no home
        return False
