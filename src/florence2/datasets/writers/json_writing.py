"""JSON files written piece by piece, so that a file may hold more than fits into memory.

In: values, one at a time. Out: JSON in UTF-8 that is the same for the same values. A text that UTF-8 can't hold, half of a surrogate pair
as in file names of other encodings, has a question mark in its place.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import IO, Any


def to_json(value: Any, indent: int | None = None) -> str:
    """A value as JSON on one line, or indented."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent).encode("utf-8", "replace").decode("utf-8")


class JsonList:
    """A JSON list, written to a temporary file item by item, and copied into another file when it is complete.

    Args:
        folder: where the temporary file is, which may become as large as the list.
    """

    def __init__(self, folder: Path) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self.num_items = 0

    def append(self, item: Any) -> None:
        """Write an item behind the others."""
        self._file.write((",\n" if self.num_items else "\n").encode() + to_json(item).encode())
        self.num_items += 1

    def copy_to(self, file: IO[bytes]) -> None:
        """Write the whole list into a file."""
        self._file.seek(0)
        file.write(b"[")
        shutil.copyfileobj(self._file, file)
        file.write(b"\n]")

    def close(self) -> None:
        """Remove the temporary file."""
        self._file.close()


def write_object(path: Path, fields: dict[str, Any]) -> None:
    """Write a JSON object whose values may be lists that were written item by item."""
    with path.open("wb") as file:
        for index, (name, value) in enumerate(fields.items()):
            file.write(("{\n" if index == 0 else ",\n").encode() + f"{to_json(name)}: ".encode())
            if isinstance(value, JsonList):
                value.copy_to(file)
            else:
                file.write(to_json(value).encode())
        file.write(b"\n}\n")
