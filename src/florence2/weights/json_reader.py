"""The JSON reader for the small files of a checkpoint: values by key, with types checked.

A ``JsonObject`` remembers which file it came from, so that every error names file and key. A missing key and ``null`` both mean the
default.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from florence2.errors import CheckpointError


class JsonObject:
    """One JSON object in a file of a checkpoint.

    Args:
        values: the object.
        where: the file and the path inside it, for messages.
    """

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self._values = values
        self.where = where

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __contains__(self, key: str) -> bool:
        return self._values.get(key) is not None

    def get(self, key: str) -> Any:
        """The value in the file, of any type; None if it is missing."""
        return self._values.get(key)

    def refuse(self, key: str, expected: str) -> CheckpointError:
        """The error for a wrong value of ``key``: what was expected, and what is there."""
        return CheckpointError(f"{self.where}: expected {key} to be {expected}, got {json.dumps(self._values.get(key))}.")

    def object(self, key: str) -> JsonObject:
        """The object under ``key``; an empty one if it is missing."""
        value = self._values.get(key)
        if value is not None and not isinstance(value, Mapping):
            raise self.refuse(key, "an object")
        return JsonObject(value or {}, f"{self.where}: {key}")

    def values(self, expected: str, kind: type) -> dict[str, Any]:
        """All entries, whose values must all have the type ``kind``."""
        for key, value in self._values.items():
            if not isinstance(value, kind):
                raise self.refuse(key, expected)
        return dict(self._values)

    def integer(self, key: str, default: int, *, minimum: int = 0) -> int:
        """A whole number of at least ``minimum``."""
        value = self._values.get(key)
        if value is None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            raise self.refuse(key, f"a whole number of at least {minimum}")
        return value

    def number(self, key: str, default: float) -> float:
        """Any finite number."""
        value = self._values.get(key)
        if value is None:
            return default
        if not isinstance(value, (int, float)) or isinstance(value, bool) or value != value or abs(value) == float("inf"):
            raise self.refuse(key, "a number")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self._values.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.refuse(key, "true or false")
        return value

    def integers(self, key: str, default: tuple[int, ...], *, minimum: int = 0) -> tuple[int, ...]:
        """A list of whole numbers of at least ``minimum``."""
        value = self._values.get(key)
        if value is None:
            return default
        if not isinstance(value, list) or not all(
            isinstance(item, int) and not isinstance(item, bool) and item >= minimum for item in value
        ):
            raise self.refuse(key, f"a list of whole numbers of at least {minimum}")
        return tuple(value)

    def strings(self, key: str) -> tuple[str, ...]:
        """A list of strings; an empty one if it is missing."""
        value = self._values.get(key) or []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.refuse(key, "a list of strings")
        return tuple(value)

    def flags(self, key: str, default: tuple[bool, ...]) -> tuple[bool, ...]:
        """A list of booleans."""
        value = self._values.get(key)
        if value is None:
            return default
        if not isinstance(value, list) or not all(isinstance(item, bool) for item in value):
            raise self.refuse(key, "a list of true and false")
        return tuple(value)

    def numbers(self, key: str, default: tuple[float, ...], length: int) -> tuple[float, ...]:
        """A list of ``length`` numbers."""
        value = self._values.get(key)
        if value is None:
            return default
        if not isinstance(value, list) or len(value) != length or not all(isinstance(item, (int, float)) for item in value):
            raise self.refuse(key, f"a list of {length} numbers")
        return tuple(float(item) for item in value)

    def require(self, key: str, accepted: Collection[Any], meaning: str) -> None:
        """Refuse a value of ``key`` that is not among ``accepted``; a missing key is accepted."""
        value = self._values.get(key)
        if value is not None and value not in accepted:
            wanted = " or ".join(json.dumps(item) for item in accepted)
            raise CheckpointError(f"{self.where}: {key} is {json.dumps(value)}, supported is {wanted} ({meaning}).")


def read_json(path: Path) -> JsonObject:
    """The JSON object in a file.

    Raises:
        CheckpointError: the file is missing or not readable, or it holds no JSON object.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing.") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: expected JSON ({error}).") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {type(values).__name__}.")
    return JsonObject(values, str(path))


def read_json_if_there(path: Path) -> JsonObject | None:
    """The JSON object in a file, as by ``read_json``; None if there is no such file."""
    return read_json(path) if path.is_file() else None
