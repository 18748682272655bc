"""Shards: machines that label one list of pictures together, each its own part of it.

In: ``3/16`` as a user writes it, and ids of pictures. Out: whether a picture belongs to the shard. It depends on the id alone, so that the
shards of all machines together hold each picture once, whatever the order and the length of their lists. Pages and frames of a file stay
together, so that only one machine opens it. Knows nothing of files.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from florence2.errors import InvalidOption

_PART = re.compile(r"(#(?:page|frame|t)=[\d.]+)?$")
_SHARD = re.compile(r"(\d{1,6})\s*/\s*(\d{1,6})")


@dataclass(frozen=True)
class Shard:
    """One of several parts of a list.

    Attributes:
        number: which one, from 1.
        count: how many there are.
    """

    number: int
    count: int

    def holds(self, picture_id: str) -> bool:
        """Whether a picture belongs to it."""
        file_id, _ = file_and_part(picture_id)
        digest = hashlib.sha256(file_id.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8]) % self.count == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def file_and_part(picture_id: str) -> tuple[str, str]:
    """An id as the name of its file and the mark of the page or frame; no mark where the picture is its file."""
    mark = _PART.search(picture_id)
    return (picture_id, "") if mark is None or not mark[1] else (picture_id[: mark.start()], mark[1])


def parse_shard(words: str) -> Shard:
    """The shard that ``3/16`` names.

    Raises:
        InvalidOption: the text names none.
    """
    found = _SHARD.fullmatch(words.strip())
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise InvalidOption(f"shard must be one part of several, such as 3/16 (counted from 1 to 16), got {words[:40]!r}", field="shard")
    return Shard(int(found[1]), int(found[2]))
