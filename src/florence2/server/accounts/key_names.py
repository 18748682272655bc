"""The names of keys: what stands in logs, limits and usage. Knows nothing of the keys themselves."""

from __future__ import annotations

import re

from florence2.errors import InvalidOption

_NAME = re.compile(r"[A-Za-z0-9][\w.@+-]{0,99}", re.ASCII)
# What keys of the settings are called: one of these in a database would share their limits and usage. And what means all keys.
_TAKEN = re.compile(r"(key|management)-\d+|self-check|all")


def check_name(name: str) -> None:
    """Refuse a name that can't be a key's.

    Raises:
        InvalidOption: it can't.
    """
    if not _NAME.fullmatch(name):
        raise InvalidOption("a key's name is 1 to 100 letters, digits and . _ - @ +, and begins with a letter or digit", field="name")
    if _TAKEN.fullmatch(name):
        raise InvalidOption(
            f"the name {name!r} means something else already: all keys, or one of the server's settings; take another", field="name"
        )
