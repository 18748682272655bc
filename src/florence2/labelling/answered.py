"""Which pictures a run has answers of, small enough for a hundred million of them: digests of their names, and the lengths of their files.

In: ids, paths and lengths, file by file. Out: ``Answered``, which says of a picture whether it was labelled. Eight bytes of a digest are
kept of each name: the chance that one of a hundred million pictures is taken for another, and left out, is under 1 in 3,600. Opens no file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from florence2.labelling.shards import file_and_part

_UNKNOWN = 2**32 - 1
_DIGEST_BYTES = 8


class Named(NamedTuple):
    """Names, and the lengths of their files.

    Attributes:
        keys: their digests, sorted, each once.
        lengths: of the file of each in bytes, modulo 2³² - 1, which itself stands for one that is not known.
    """

    keys: np.ndarray
    lengths: np.ndarray

    def find(self, names: Iterable[str]) -> np.ndarray:
        """The index of each name; -1 for one that is not there."""
        keys = _digests(names)
        if not len(self.keys):
            return np.full(len(keys), -1)
        indices = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[indices] == keys, indices, -1)


class Answered:
    """The pictures that were labelled; ``Gathered`` makes it. It may be pickled.

    Args:
        ids: their ids.
        places: their files with the mark of the page or frame, of those whose id is another text.
    """

    def __init__(self, ids: Named, places: Named) -> None:
        self._ids, self._places = ids, places

    def __len__(self) -> int:
        """How many pictures were labelled."""
        return len(self._ids.keys)

    @property
    def num_bytes(self) -> int:
        """The memory that it takes."""
        return sum(array.nbytes for array in (*self._ids, *self._places))

    def __contains__(self, picture_id: str) -> bool:
        """Whether a picture was labelled under this name, whatever has become of its file."""
        return bool(self.contains([picture_id])[0])

    def contains(self, picture_ids: Sequence[str]) -> np.ndarray:
        """Whether each of some pictures was labelled under this name, as booleans in their order."""
        return self._ids.find(picture_ids) >= 0

    def are_known(self, picture_ids: Sequence[str], paths: Sequence[str | None]) -> np.ndarray:
        """Whether each of some pictures was labelled under this name or another one of its file, however long that was."""
        places = [name if path is None else place_of(name, path) for name, path in zip(picture_ids, paths, strict=True)]
        return (self._ids.find(picture_ids) >= 0) | (self._ids.find(places) >= 0) | (self._places.find(places) >= 0)

    def holds(self, picture_id: str, path: str | None = None) -> bool:
        """Whether a picture was labelled under this name or another one of its file, and its file is as long as it was.

        Args:
            picture_id: its id.
            path: its file's absolute path; None where it is no file.
        """
        known = self._known(picture_id, path)
        if known is None or path is None or known == _UNKNOWN:
            return known is not None
        try:
            return _kept(os.stat(path).st_size) == known
        except OSError:  # gone since, and there is nothing to ask about
            return True

    def _known(self, picture_id: str, path: str | None) -> int | None:
        """The length that the picture's file had; None where it was not labelled."""
        if (index := self._ids.find([picture_id])[0]) >= 0:
            return int(self._ids.lengths[index])
        place = picture_id if path is None else place_of(picture_id, path)
        index = self._places.find([place])[0]
        if index >= 0:
            return int(self._places.lengths[index])
        return int(self._ids.lengths[index]) if (index := self._ids.find([place])[0]) >= 0 else None


class Gathered:
    """Pictures that were labelled, as they are read; of one that comes several times the last of the highest order counts."""

    def __init__(self) -> None:
        self._ids: list[tuple[int, Named]] = []
        self._places: list[tuple[int, Named]] = []

    def add(self, picture_ids: Sequence[str], paths: Sequence[str | None], lengths: Sequence[int | None], order: int = 0) -> None:
        """Add pictures.

        Args:
            picture_ids: their ids.
            paths: of each its file's absolute path; None where it is no file.
            lengths: of each the length of its file in bytes; None where it is not known.
            order: what counts before lower ones.
        """
        kept = np.fromiter(map(_kept, lengths), np.uint32, len(picture_ids))
        places = [place_of(name, path) if path else name for name, path in zip(picture_ids, paths, strict=True)]
        others = [index for index, (place, name) in enumerate(zip(places, picture_ids, strict=True)) if place != name]
        self._ids.append((order, Named(_digests(picture_ids), kept)))
        self._places.append((order, Named(_digests(places[index] for index in others), kept[others])))

    def add_records(self, records: Sequence[Mapping[str, Any]], order: int) -> None:
        """Add pictures by their records."""
        ids, paths, lengths = ([record.get(name) for record in records] for name in ("id", "path", "num_bytes"))
        self.add([str(name) for name in ids], paths, lengths, order)

    def answered(self) -> Answered:
        """All of them; what was gathered is given up, as it may be gigabytes."""
        return Answered(_joined(self._ids), _joined(self._places))


def place_of(picture_id: str, path: str) -> str:
    """The picture's file with the mark of its page or frame, by which it is known under whatever name."""
    return f"{path}{file_and_part(picture_id)[1]}"


def _joined(pieces: list[tuple[int, Named]]) -> Named:
    """The names of all pieces, sorted and each once, with what was said of them last; the pieces are given up."""
    if not pieces:
        return Named(np.empty(0, np.uint64), np.empty(0, np.uint32))
    pieces.sort(key=lambda piece: piece[0])
    keys, lengths = (np.concatenate(arrays) for arrays in zip(*(named for _, named in pieces), strict=True))
    pieces.clear()
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    lengths = lengths[order]
    del order
    is_last = np.append(keys[1:] != keys[:-1], np.ones(min(1, len(keys)), bool))
    return Named(keys, lengths) if is_last.all() else Named(keys[is_last], lengths[is_last])


def _kept(num_bytes: object) -> int:
    return num_bytes % _UNKNOWN if isinstance(num_bytes, int) else _UNKNOWN


def _digests(names: Iterable[str]) -> np.ndarray:
    """Eight bytes of a digest of each name."""
    made = b"".join(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest() for name in names)
    return np.frombuffer(made, "<u8")
