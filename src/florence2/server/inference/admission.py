"""Bounds on what the server takes on at once: places, and bytes of bodies, for all, for each key, and for those who have shown none.

``Admission`` counts; whoever finds no room is told to try again instead of waiting unseen. A request enters before a byte of its body is
read, and its ``Entry`` grows with what becomes known of it. Knows nothing of what requests are about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from florence2.server.errors import Draining, Overloaded
from florence2.server.settings import Settings

MAX_HEAD_BYTES = 32 * 2**10  # of a request, its path and query included
FREE_BYTES = 4096
"""So much of a body is read before it counts as one without a key: whoever writes the key first never counts among those."""


class Entry:
    """What one request holds.

    Attributes:
        key: the name of the key on whose account it stands; None as long as that is not known.
        places: places taken; 0 as long as there is no key.
        num_bytes: how much of its body is held.
        is_stranger: it holds one of the few bodies that are read without a key.
    """

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.key: str | None = None
        self.places = 0
        self.num_bytes = 0
        self.is_stranger = False

    def identify(self, key: str) -> None:
        """See ``Admission.identify``."""
        self._admission.identify(self, key)

    def grow(self, places: int) -> None:
        """See ``Admission.grow``."""
        self._admission.grow(self, places)

    def add_bytes(self, count: int) -> None:
        """See ``Admission.add_bytes``."""
        self._admission.add_bytes(self, count)


class Admission:
    """Room for requests. A place is one beam of the search for one prompt about one image. Runs in the event loop only.

    Attributes:
        is_draining: no new request is taken.
    """

    def __init__(self, settings: Settings) -> None:
        self.is_draining = False
        self._max_places = settings.max_requests
        self._max_places_of_key = settings.max_requests_per_key
        self._max_bytes = max(settings.max_bodies_bytes, settings.max_body_bytes)
        # Of the memory for bodies a key has the same share as of places, and room for one body in any case.
        share = min(1, (settings.max_requests_per_key or settings.max_requests) / settings.max_requests)
        self._max_bytes_of_key = max(int(share * self._max_bytes), settings.max_body_bytes)
        self._max_strangers = settings.max_keyless_bodies
        # Three of the largest bodies, whatever they are: enough for many of the usual size.
        self._max_stranger_bytes = 3 * settings.max_body_bytes
        self._taken = self._bytes = self._strangers = self._stranger_bytes = 0
        self._taken_by: Counter[str] = Counter()
        self._bytes_of: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        """Places taken now."""
        return self._taken

    @contextmanager
    def enter(self, key: str | None) -> Iterator[Entry]:
        """Room for one request, before anything is known of it but its key; given back at the end with all that was added.

        Args:
            key: the name of its key, "" where none is asked for; None: its body may hold one.

        Raises:
            Draining: the server is about to end.
            Overloaded: there is no room left.
        """
        if self.is_draining:
            raise Draining("the server is shutting down and takes no more requests; send it again")
        entry = Entry(self)
        try:
            if key is not None:
                self.identify(entry, key)
            yield entry
        finally:
            self._leave(entry)

    def identify(self, entry: Entry, key: str) -> None:
        """Put a request on its key's account, with one place and what was read of its body. Once it is there it stays.

        Raises:
            Overloaded: there is no room for it.
        """
        if entry.key is not None:
            return
        self._check_places(0, 1, key)
        self._check_bytes(key, entry.num_bytes)
        self._leave_strangers(entry)
        entry.key, entry.places = key, 1
        self._taken += 1
        self._taken_by[key] += 1
        self._bytes += entry.num_bytes
        self._bytes_of[key] += entry.num_bytes

    def grow(self, entry: Entry, places: int) -> None:
        """Make a request as large as it turned out to be.

        One that is larger than a bound passes when it is alone: it could never pass otherwise.

        Raises:
            Overloaded: there is no room for it.
        """
        key = entry.key or ""
        self._check_places(entry.places, places, key)
        self._taken += places - entry.places
        self._taken_by[key] += places - entry.places
        entry.places = places

    def add_bytes(self, entry: Entry, count: int) -> None:
        """Take note of a part of a body that has come in.

        Raises:
            Overloaded: there is no room for it.
        """
        if entry.key is not None:
            self._check_bytes(entry.key, count)
            self._bytes += count
            self._bytes_of[entry.key] += count
        elif entry.num_bytes + count > FREE_BYTES:
            self._add_stranger_bytes(entry, count)
        entry.num_bytes += count

    def _check_places(self, present: int, wanted: int, key: str) -> None:
        """Refuse ``wanted`` places instead of the ``present`` ones of a request, unless there is room or the request is alone."""
        others, of_key = self._taken - present, self._taken_by[key] - present
        if others and others + wanted > self._max_places:
            raise Overloaded(
                f"the server has {others} of {self._max_places} places taken, and this request needs {wanted}; send it again in a moment"
            )
        most = self._max_places_of_key
        if most is not None and of_key and of_key + wanted > most:
            raise Overloaded(
                f"this key has {of_key} of its {most} places taken, and this request needs {wanted}; send it again in a moment"
            )

    def _check_bytes(self, key: str, count: int) -> None:
        """Refuse ``count`` more bytes of bodies unless there is room for them, the key's own share included."""
        for taken, most in ((self._bytes, self._max_bytes), (self._bytes_of[key], self._max_bytes_of_key)):
            if taken + count > most:
                raise Overloaded(f"bodies of {taken} bytes are held at present, and {most} is the most; send it again in a moment")

    def _add_stranger_bytes(self, entry: Entry, count: int) -> None:
        if not entry.is_stranger and self._strangers >= self._max_strangers:
            raise _no_room_without_key()
        added = count if entry.is_stranger else entry.num_bytes + count
        if self._stranger_bytes + added > self._max_stranger_bytes and self._stranger_bytes:
            raise _no_room_without_key()
        self._strangers += not entry.is_stranger
        self._stranger_bytes += added
        entry.is_stranger = True

    def _leave_strangers(self, entry: Entry) -> None:
        if entry.is_stranger:
            self._strangers -= 1
            self._stranger_bytes -= entry.num_bytes
            entry.is_stranger = False

    def _leave(self, entry: Entry) -> None:
        """Give back all that a request holds."""
        self._leave_strangers(entry)
        if entry.key is None:
            return
        self._taken -= entry.places
        self._bytes -= entry.num_bytes
        self._taken_by[entry.key] -= entry.places
        self._bytes_of[entry.key] -= entry.num_bytes
        for counts in (self._taken_by, self._bytes_of):
            if not counts[entry.key]:
                del counts[entry.key]  # so that nothing is left of keys that are gone


def _no_room_without_key() -> Overloaded:
    return Overloaded(
        "too many bodies are being read whose key is not known yet; send the key as Authorization: Bearer, "
        "or write api_key in front of the image, or send it again in a moment"
    )
