"""Bounds on what the server takes on: bytes of a body, requests under way, time of one.

``Admission`` counts; whoever finds no place is told to try again instead of waiting unseen. ``BodyLimit`` stops a body while it
comes in. Knows nothing of what requests are about.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from florence2.server.errors import BodyTooLarge, Draining, Overloaded


class Admission:
    """Places for requests; a place is one image with one prompt. Runs in the event loop only.

    Attributes:
        is_draining: no new request is taken.
    """

    def __init__(self, max_places: int, max_places_per_key: int | None) -> None:
        self.is_draining = False
        self._max_places = max_places
        self._max_per_key = max_places_per_key
        self._taken = 0
        self._taken_by: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        """Places taken now."""
        return self._taken

    @contextmanager
    def place(self) -> Iterator[Place]:
        """One place, before anything is known of the request; given back at the end with all that were added.

        Raises:
            Draining: the server is about to end.
            Overloaded: there is none left.
        """
        if self.is_draining:
            raise Draining("the server is shutting down and takes no more requests; send it again")
        if self._taken >= self._max_places:
            raise self._overloaded()
        self._taken += 1
        place = Place(self)
        try:
            yield place
        finally:
            self._taken -= place.size
            if place.key is not None:
                self._taken_by[place.key] -= place.size
                self._taken_by += Counter()  # forget those at zero

    def grow(self, place: Place, size: int, key: str) -> None:
        """Make a request's place as large as it turned out to be, on its key's account.

        A request that is larger than the bound passes when it is alone: it could never pass otherwise.

        Raises:
            Overloaded: there is no room for it.
        """
        others, of_key = self._taken - place.size, self._taken_by[key]
        if others and others + size > self._max_places:
            raise self._overloaded()
        if self._max_per_key is not None and of_key and of_key + size > self._max_per_key:
            raise Overloaded(f"this key has {of_key} requests under way and may have {self._max_per_key}; send it again in a moment")
        self._taken = others + size
        self._taken_by[key] += size
        place.size, place.key = size, key

    def _overloaded(self) -> Overloaded:
        return Overloaded(f"the server has {self._taken} requests under way and takes {self._max_places}; send it again in a moment")


class Place:
    """What one request takes up."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.size = 1
        self.key: str | None = None

    def grow(self, size: int, key: str) -> None:
        """See ``Admission.grow``."""
        self._admission.grow(self, size, key)


class BodyLimit:
    """Middleware that stops reading a body that is too large, announced or not."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a body that can't grow beyond the limit."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and int(announced) > self._max_bytes:
            raise self._error(announced)
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise self._error("more")
            return message

        await self._app(scope, limited, send)

    def _error(self, size: str) -> BodyTooLarge:
        return BodyTooLarge(
            f"the body is too large: at most {self._max_bytes} bytes are taken, got {size}; send a smaller image or its URL"
        )
