"""Keys that the settings give, as values or in files: compared by digest in constant time, never logged.

In: the values, and where they stand. Out: who a key is. Knows nothing of keys in databases.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from pathlib import Path

from florence2.errors import InvalidOption
from florence2.server.accounts.key_info import ROLES, KeyInfo, Role

MIN_KEY_CHARS = 8


class GivenKeys:
    """The keys of one or two settings each for those who ask and those who manage.

    Raises:
        InvalidOption: a file of keys can't be read or holds none, or a key is too short or could not be sent.
    """

    def __init__(self, infer: Iterable[str], infer_file: Path | None, manage: Iterable[str], manage_file: Path | None) -> None:
        self._known: list[tuple[bytes, KeyInfo]] = []
        self._add("key", ("infer",), _all_of(infer, infer_file, "api_keys"))
        self._add("management", ROLES, _all_of(manage, manage_file, "management_keys"))

    def _add(self, name: str, roles: Iterable[Role], values: Iterable[str]) -> None:
        for number, value in enumerate(values, 1):
            self._known.append((digest(value), KeyInfo(f"{name}-{number}", frozenset(roles))))

    def __bool__(self) -> bool:
        return bool(self._known)

    def find(self, key: str) -> KeyInfo | None:
        """Whose key it is; None: nobody's. One that is given for both is one for managing."""
        sought, found = digest(key), None
        for known, info in self._known:
            if hmac.compare_digest(sought, known):
                found = info
        return found


def digest(key: str) -> bytes:
    """What keys are compared by. All have one length, so that comparing them reveals nothing about the length of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _all_of(values: Iterable[str], path: Path | None, setting: str) -> list[str]:
    keys = list(values)
    _check(keys, setting)
    return keys + (read_keys(path, f"{setting}_file") if path is not None else [])


def read_keys(path: Path, setting: str) -> list[str]:
    """The keys of a file.

    Args:
        path: the file.
        setting: the setting that names it, for errors.

    Raises:
        InvalidOption: it can't be read or holds none, or a key is too short or could not be sent.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidOption(
            f"the file of keys {str(path)!r} can't be read: {getattr(error, 'strerror', None) or error}", field=setting
        ) from None
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise InvalidOption(f"the file of keys {str(path)!r} holds none; write one key a line", field=setting)
    _check(keys, setting)
    return keys


def _check(keys: Sequence[str], setting: str) -> None:
    """Refuse keys that could be guessed, or that no header can carry. The message names a key by its number: it may be logged."""
    for number, key in enumerate(keys, 1):
        if len(key) < MIN_KEY_CHARS:
            raise InvalidOption(
                f"key {number} of {setting} has {len(key)} characters, and fewer than {MIN_KEY_CHARS} can be guessed; "
                "make one with: openssl rand -hex 20",
                field=setting,
            )
        if not (key.isascii() and key.isprintable() and " " not in key):
            raise InvalidOption(f"key {number} of {setting} must be printable ASCII without spaces; no header can carry it", field=setting)
