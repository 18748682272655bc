"""The longest time that one request may take: the server's setting, which the request's header ``x-request-timeout`` may shorten.

In: the head of a request. Out: how many seconds it has left, counted from the moment its head was there; and the error for one whose time
is up. The body's own times are those of ``body.py``. Knows nothing of what requests do with their time.
"""

from __future__ import annotations

import math
import time

from starlette.types import Scope

from florence2.errors import InvalidRequest
from florence2.server.errors import TimedOut
from florence2.server.settings import Settings

HEADER = "x-request-timeout"
_NAME = HEADER.encode()
MAX_HEADER_CHARS = 32


def allowed_s(scope: Scope, settings: Settings) -> float:
    """How long a request may take, in seconds; never longer than the server allows.

    Raises:
        InvalidRequest: the header is there, and no number of seconds above 0.
    """
    values = [value.decode("latin-1") for name, value in scope["headers"] if name == _NAME]
    if not values:
        return settings.request_timeout_s
    seconds = _seconds(values[0]) if len(values) == 1 else None
    if seconds is None:
        got = f"{len(values)} of them" if len(values) > 1 else repr(values[0][:MAX_HEADER_CHARS])
        raise InvalidRequest(
            f"the header {HEADER} is a number of seconds above 0, such as 2.5, after which the answer is of no use; got {got}", field=HEADER
        )
    return min(seconds, settings.request_timeout_s)


def seconds_left(scope: Scope) -> float:
    """How many seconds a request has left; 0.0 when its time is up."""
    state = scope["state"]
    return max(0.0, state["started"] + state["deadline_s"] - time.perf_counter())


def timed_out(scope: Scope) -> TimedOut:
    """The error for a request whose time is up."""
    whose = f"its header {HEADER} allows" if any(name == _NAME for name, _ in scope["headers"]) else "this server allows"
    return TimedOut(f"the request took longer than {scope['state']['deadline_s']:g} s, the longest that {whose}")


def _seconds(text: str) -> float | None:
    """The number that the header holds; None: it holds none that can be meant."""
    if len(text) > MAX_HEADER_CHARS or not text.isascii() or "_" in text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None
