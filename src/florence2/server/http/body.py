"""Reading of bodies: how large they may be, how slowly they may come in, and for which key they are counted.

A body that begins with its key is counted for the key from there on; others count among the few that are read without one, for a short
time. In: a request. Out: the bytes of its body. Knows nothing of what bodies mean.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Scope

from florence2.server.accounts.key_info import KeyInfo
from florence2.server.errors import BodyTimedOut, BodyTooLarge, UnsupportedMedia
from florence2.server.http.auth import Keys, content_kind, identify
from florence2.server.http.headers import header
from florence2.server.inference.admission import Permit
from florence2.server.settings import Settings

MIN_BYTES_PER_S = 16 * 2**10
SEARCHED_BYTES = 64 * 2**10  # of a body, for its key, while it comes in


@dataclass(frozen=True)
class ShownKey:
    """A key in a body that is still coming in.

    Attributes:
        value: the key, or the value that the body has instead.
        is_certain: it is the request's key; otherwise it counts only if it is right.
    """

    value: object
    is_certain: bool


FindKey = Callable[[Scope, bytes], ShownKey | None]
"""Finds the key of a request in the beginning of its body."""


async def receive_body(
    request: Request, permit: Permit | None, keys: Keys, find_key: FindKey, settings: Settings, max_bytes: int
) -> bytearray:
    """The whole body.

    Args:
        request: nothing of whose body has been read.
        permit: what the request holds; None: nothing is counted, where bodies are tiny.
        keys: the keys that are accepted.
        find_key: where a body may show its key.
        settings: the times.
        max_bytes: the largest body.

    Raises:
        BodyTooLarge: it is larger, announced or not.
        BodyTimedOut: it comes in too slowly.
        Unauthorized: it begins with a key that is not known.
        Overloaded: there is no room for it.
    """
    announced = header(request.scope, b"content-length")
    if announced.isdecimal() and int(announced) > max_bytes:
        raise _too_large(max_bytes, announced)
    body, watch = bytearray(), _KeyWatch(request, keys, find_key)
    more = True
    while more:
        message = await _in_time(request, settings, len(body))
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk, more = message.get("body", b""), message.get("more_body", False)
        body += chunk
        if len(body) > max_bytes:
            raise _too_large(max_bytes, "more")
        key = await watch.look(body)
        if permit is not None:
            if key is not None:
                permit.identify(key.name, key.max_slots)
            permit.add_bytes(len(chunk))
    return body


async def _in_time(request: Request, settings: Settings, received: int) -> Message:
    """The next part, unless the time for the body is up."""
    state = request.scope["state"]
    is_known = state["key_name"] is not None
    allowed = settings.body_timeout_s + received / MIN_BYTES_PER_S if is_known else settings.keyless_body_timeout_s
    allowed = min(allowed, state["deadline_s"])
    if (left := state["started"] + allowed - time.perf_counter()) > 0:
        limit = asyncio.timeout(left)
        try:
            async with limit:  # without a task of its own, as asyncio.wait_for makes one in Python 3.11
                return await request.receive()
        except TimeoutError:
            if not limit.expired():
                raise
    hint = "" if is_known else "; one whose key is in front, or in the Authorization header, may take longer"
    raise BodyTimedOut(f"the body was not there after {allowed:.3g} s, {received} bytes of it were{hint}")


class _KeyWatch:
    """Looks for the key in the beginning of a body while the body comes in."""

    def __init__(self, request: Request, keys: Keys, find_key: FindKey) -> None:
        self._scope = request.scope
        self._keys = keys
        self._find_key = find_key
        self._next_look = 1

    async def look(self, body: bytearray) -> KeyInfo | None:
        """The key, once the body shows it.

        Raises:
            Unauthorized: the body certainly shows one that is not known.
        """
        # Not at every chunk, which may be a byte: only when the body is twice as long.
        if self._scope["state"]["key_name"] is not None or len(body) < self._next_look:
            return None
        self._next_look = 2 * len(body) if len(body) < SEARCHED_BYTES else 2**62
        shown = self._find_key(self._scope, bytes(body[:SEARCHED_BYTES]))
        if shown is None:
            return None
        return await identify(self._scope, self._keys, shown.value, is_certain=shown.is_certain)


def require_json(request: Request) -> None:
    """Refuse a body that does not say that it is JSON, before any of it is read.

    Raises:
        UnsupportedMedia: another content type, or a compressed body.
    """
    refuse_compressed(request)
    if (kind := content_kind(request.scope)) != "application/json":
        raise UnsupportedMedia(
            f"the body must be application/json, got {kind[:80] or 'no Content-Type'}: send Content-Type: application/json"
        )


def refuse_compressed(request: Request) -> None:
    """Refuse a compressed body.

    Raises:
        UnsupportedMedia: it is one.
    """
    encoding = header(request.scope, b"content-encoding", "identity").lower()
    if encoding != "identity":
        raise UnsupportedMedia(f"the body must not be compressed, got Content-Encoding: {encoding[:40]}; send it as it is")


def _too_large(max_bytes: int, size: str) -> BodyTooLarge:
    return BodyTooLarge(f"the body is too large: at most {max_bytes} bytes are taken, got {size[:20]}; send a smaller image or its URL")
