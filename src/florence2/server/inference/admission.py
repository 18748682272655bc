"""Limits on the requests in flight: slots and bytes of bodies, for all, for each key, and for requests whose key is not known yet.

``Admission`` counts; a request for which there is no room, or which can't be answered in its time, is refused and may be sent again. A
request is admitted before a byte of its body is read, and its ``Permit`` grows with what becomes known of it. Knows nothing of what
requests are about.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from florence2.engine_stats import EngineStats
from florence2.server.errors import Draining, Overloaded
from florence2.server.inference.answer_rate import AnswerRate
from florence2.server.inference.freeing_rate import FreeingRate, bounded
from florence2.server.settings import Settings

FREE_BYTES = 4096
"""So much of a body is read before it counts as one without a key: a body that begins with its key never counts as one."""


class Permit:
    """What one request holds.

    Attributes:
        key: the name of the key on whose account it stands; None as long as that is not known.
        max_slots: the most slots that the key may take, beside what all may; None: no such limit of its own.
        num_slots: slots taken; 0 as long as there is no key.
        num_bytes: how much of its body, or of the files in it, is held.
        is_keyless: it holds one of the few bodies that are read without a key.
        is_read: its body was read, so that it is, or soon will be, where the models answer it.
        is_answered: everything that it asks was answered.
        has_left: all was given back, and what comes late counts nothing.
        seconds_left: how long its answer may take from now on.
    """

    def __init__(self, admission: Admission, seconds_left: Callable[[], float]) -> None:
        self._admission = admission
        self.seconds_left = seconds_left
        self.key: str | None = None
        self.max_slots: int | None = None
        self.num_slots = 0
        self.num_bytes = 0
        self.is_keyless = self.is_read = self.is_answered = self.has_left = False

    def identify(self, key: str, max_slots: int | None = None) -> None:
        """See ``Admission.identify``."""
        self._admission.identify(self, key, max_slots)

    def grow(self, num_slots: int) -> None:
        """See ``Admission.grow``."""
        self._admission.grow(self, num_slots)

    def add_slots(self, num_rows: int, num_parts: int) -> None:
        """Grow by the slots of so many more parts of an image, each asked with so many beams over all prompts."""
        self._admission.grow(self, self.num_slots + num_rows * num_parts)

    def add_bytes(self, count: int) -> None:
        """See ``Admission.add_bytes``."""
        if not self.has_left:
            self._admission.add_bytes(self, count)

    def hold_bytes(self, num_bytes: int) -> None:
        """See ``Admission.hold_bytes``."""
        if not self.has_left:
            self._admission.hold_bytes(self, num_bytes)


class Admission:
    """Room for requests. A slot is one beam of the search for one prompt about one image. Runs in the event loop only.

    Args:
        settings: the limits.
        load: what the engines have to do at present, all together.
        clock: seconds, for the rates at which slots and bytes are freed, and requests answered.

    Attributes:
        is_draining: no new request is taken.
    """

    def __init__(
        self, settings: Settings, load: Callable[[], EngineStats] = EngineStats, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.is_draining = False
        self._max_slots = settings.max_requests
        self._max_slots_per_key = settings.max_requests_per_key
        self._max_bytes = max(settings.max_bodies_bytes, settings.max_body_bytes)
        # A key has the same share of the memory for bodies as of the slots, and room for one body in any case.
        share = min(1, (settings.max_requests_per_key or settings.max_requests) / settings.max_requests)
        self._max_bytes_of_key = max(int(share * self._max_bytes), settings.max_body_bytes)
        self._max_keyless = settings.max_keyless_bodies
        # Three of the largest bodies, whatever they are: enough for many of the usual size.
        self._max_keyless_bytes = 3 * settings.max_body_bytes
        self._num_slots = self._bytes = self._keyless = self._keyless_bytes = 0
        self._slots_of: Counter[str] = Counter()
        self._bytes_of: Counter[str] = Counter()
        self._max_waiting_bytes = settings.max_waiting_bytes
        self._load = load
        self._freeing_slots, self._freeing_bytes = FreeingRate(clock), FreeingRate(clock)
        self._answering = AnswerRate(clock)
        self._read_slots_of: Counter[str] = Counter()

    @property
    def num_slots(self) -> int:
        """Slots taken now."""
        return self._num_slots

    @property
    def num_bytes(self) -> int:
        """Bytes of bodies and image files held now."""
        return self._bytes + self._keyless_bytes

    @contextmanager
    def enter(
        self, key: str | None, max_slots: int | None = None, seconds_left: Callable[[], float] = lambda: math.inf
    ) -> Iterator[Permit]:
        """Admit one request, of which nothing but its key is known yet; all that it holds is given back at the end.

        Args:
            key: the name of its key, "" where none is needed; None: its body may hold one.
            max_slots: the most slots that this key may take, beside what all may; None: no such limit of its own.
            seconds_left: how long its answer may take from now on.

        Raises:
            Draining: the server is about to end.
            Overloaded: there is no room left, or no time.
        """
        if self.is_draining:
            raise Draining("the server is shutting down and takes no more requests; send it again")
        permit = Permit(self, seconds_left)
        try:
            if key is not None:
                self.identify(permit, key, max_slots)
            yield permit
        finally:
            self._leave(permit)

    def identify(self, permit: Permit, key: str, max_slots: int | None = None) -> None:
        """Put a request on its key's account, with one slot and what was read of its body. Once it is there it stays.

        Raises:
            Overloaded: there is no room for it, or no time.
        """
        if permit.key is not None:
            return
        self._check_slots(0, 1, key, max_slots)
        load = self._load()
        self._check_waiting(load)
        self._check_time(permit, 1, key, load)
        self._check_bytes(key, permit.num_bytes)
        self._leave_keyless(permit)
        permit.key, permit.max_slots, permit.num_slots = key, max_slots, 1
        self._take_slots(key, 1)
        self._take_bytes(key, permit.num_bytes)

    def grow(self, permit: Permit, num_slots: int) -> None:
        """Make a request, whose body was read, as large as it turned out to be.

        One that is larger than a bound passes when it is alone: it could never pass otherwise.

        Raises:
            Overloaded: there is no room for it, or no time.
        """
        key = permit.key or ""
        self._check_slots(permit.num_slots, num_slots, key, permit.max_slots)
        if not permit.is_read:
            self._check_time(permit, num_slots, key, self._load())
        self._read_slots_of[key] += num_slots - permit.num_slots * permit.is_read
        self._take_slots(key, num_slots - permit.num_slots)
        permit.num_slots, permit.is_read = num_slots, True

    def add_bytes(self, permit: Permit, count: int) -> None:
        """Count a part of a body that has come in.

        Raises:
            Overloaded: there is no room for it.
        """
        if permit.key is not None:
            self._check_bytes(permit.key, count)
            self._take_bytes(permit.key, count)
        elif permit.num_bytes + count > FREE_BYTES:
            self._add_keyless_bytes(permit, count)
        permit.num_bytes += count

    def hold_bytes(self, permit: Permit, num_bytes: int) -> None:
        """Count what is left of the body of a request that has a key: the files that were in it."""
        assert permit.key is not None
        self._take_bytes(permit.key, num_bytes - permit.num_bytes)
        permit.num_bytes = num_bytes

    def _check_slots(self, present: int, wanted: int, key: str, max_slots: int | None) -> None:
        """Refuse ``wanted`` slots instead of the ``present`` ones of a request, unless there is room or the request is alone."""
        others, of_key = self._num_slots - present, self._slots_of[key] - present
        if others and others + wanted > self._max_slots:
            raise Overloaded(
                f"the server has {others} of {self._max_slots} places taken, and this request needs {wanted}; send it again in a moment",
                self._freeing_slots.promise(others + wanted - self._max_slots, self._num_slots),
            )
        most = min((one for one in (self._max_slots_per_key, max_slots) if one is not None), default=None)
        if most is not None and of_key and of_key + wanted > most:
            share = of_key / max(others, 1)  # keys take turns
            raise Overloaded(
                f"this key has {of_key} of its {most} places taken, and this request needs {wanted}; send it again in a moment",
                self._freeing_slots.seconds_until(of_key + wanted - most, self._num_slots, share),
            )

    def _check_waiting(self, load: EngineStats) -> None:
        """Refuse more requests while the pictures that wait in the engines take as much memory as they may."""
        if (waiting := load.waiting_bytes) > self._max_waiting_bytes:
            raise Overloaded(
                f"pictures of {waiting} bytes wait for the model, and {self._max_waiting_bytes} is the most; send it again in a moment",
                self._freeing_slots.promise(1, self._num_slots),
            )

    def _check_time(self, permit: Permit, num_slots: int, key: str, load: EngineStats) -> None:
        """Refuse a request that can't be answered in its time, by the rate at which those before it are, while any wait for a model."""
        self._answering.note(0, is_waited=load.num_waiting > 0)
        if not load.num_waiting:
            return
        others = self._read_slots_of
        num_keys = len(others) + (key not in others)  # they take turns
        ahead = min(others.total(), load.num_running + others[key] * num_keys + (num_keys - 1))
        takes_s, left_s = self._answering.seconds_for(ahead + num_slots), permit.seconds_left()
        if takes_s > left_s:
            raise Overloaded(
                f"with those before it this request takes about {takes_s:.0f} s at present, and {left_s:.3g} s are left of its time; "
                "send it again in a moment, or with more time",
                bounded(takes_s - left_s),
            )

    def _check_bytes(self, key: str, count: int) -> None:
        """Refuse ``count`` more bytes of bodies unless there is room for them, the key's own share included."""
        for taken, most in ((self._bytes, self._max_bytes), (self._bytes_of[key], self._max_bytes_of_key)):
            if taken + count > most:
                raise Overloaded(
                    f"bodies of {taken} bytes are held at present, and {most} is the most; send it again in a moment",
                    self._freeing_bytes.promise(taken + count - most, self._bytes),
                )

    def _take_slots(self, key: str, count: int) -> None:
        """Count slots that a request takes, or gives back if there are less than 0."""
        self._freeing_slots.note(self._num_slots, self._num_slots + count)
        self._num_slots += count
        self._slots_of[key] += count

    def _take_bytes(self, key: str, count: int) -> None:
        """Count bytes, as slots are counted."""
        self._freeing_bytes.note(self._bytes, self._bytes + count)
        self._bytes += count
        self._bytes_of[key] += count

    def _add_keyless_bytes(self, permit: Permit, count: int) -> None:
        if not permit.is_keyless and self._keyless >= self._max_keyless:
            raise _no_room_without_key()
        added = count if permit.is_keyless else permit.num_bytes + count
        if self._keyless_bytes + added > self._max_keyless_bytes and self._keyless_bytes:
            raise _no_room_without_key()
        self._keyless += not permit.is_keyless
        self._keyless_bytes += added
        permit.is_keyless = True

    def _leave_keyless(self, permit: Permit) -> None:
        if permit.is_keyless:
            self._keyless -= 1
            self._keyless_bytes -= permit.num_bytes
            permit.is_keyless = False

    def _leave(self, permit: Permit) -> None:
        """Return all permits of a request."""
        permit.has_left = True
        self._leave_keyless(permit)
        if permit.key is None:
            return
        if permit.is_read:
            self._answering.note(permit.num_slots * permit.is_answered, is_waited=self._load().num_waiting > 0)
            self._read_slots_of[permit.key] -= permit.num_slots
        self._take_slots(permit.key, -permit.num_slots)
        self._take_bytes(permit.key, -permit.num_bytes)
        for counts in (self._slots_of, self._bytes_of, self._read_slots_of):
            if not counts[permit.key]:
                del counts[permit.key]  # so that nothing is left of keys that are gone


def _no_room_without_key() -> Overloaded:
    return Overloaded(
        "too many bodies are being read whose key is not known yet; send the key as Authorization: Bearer, "
        "or write api_key in front of the image, or send it again in a moment"
    )
