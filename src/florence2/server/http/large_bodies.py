"""Large bodies, parsed in threads, so that the event loop answers others meanwhile.

A small body is parsed where it is: a thread would take longer. In: a request, and what parses its body. Out: what that returns. Knows
nothing of forms and JSON.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from starlette.requests import Request

from florence2.server.http.streaming import unless_client_leaves

Parsed = TypeVar("Parsed")

LARGE_BYTES = 2**18
"""From here on a body is parsed in a thread; smaller ones take less than a millisecond."""
# Parsing mostly holds the interpreter's lock, so that more threads parse no faster; each has one body and what comes of it in memory.
NUM_THREADS = 2


class BodyThreads:
    """The threads of one server."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="florence2-body")

    async def parse(self, request: Request, num_bytes: int, parse: Callable[[], Parsed]) -> Parsed:
        """What ``parse`` returns, here or in a thread.

        Args:
            request: whose body it is, read to its end.
            num_bytes: how large the body is.
            parse: parses it; its exceptions are raised.

        Raises:
            ClientLeft, TimedOut: the client left, or the request's time was up, while the body waited for a thread.
        """
        if num_bytes < LARGE_BYTES:
            return parse()

        async def parsed() -> Parsed:
            return await asyncio.wrap_future(self._pool.submit(parse))

        return await unless_client_leaves(request, parsed())

    def close(self) -> None:
        """End the threads once they are done."""
        self._pool.shutdown(wait=False, cancel_futures=True)
