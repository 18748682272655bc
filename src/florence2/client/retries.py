"""When a request is sent again: one policy for every way to wait, and for answers that are whole and those that are streamed.

In: a request and what sends it once. Out: the last answer. Knows neither sockets nor what answers mean, beyond their status.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from florence2.client.configuration import InferenceConfiguration
from florence2.client.connection import Connection, Job
from florence2.client.errors import ConnectionFailed
from florence2.client.wire import MAX_REDIRECTS, RETRYABLE, Request, Response, ResponseHead, redirected, retry_after_of

Answered = TypeVar("Answered", bound=ResponseHead)
Send = Callable[[Request], Coroutine[Any, Any, Answered]]

_MAX_BACKOFF_S = 30.0
_RETRY_AFTER_JITTER = 0.1  # clients that were told to wait equally long come back one after the other


async def exchange(connection: Connection, request: Request, configuration: InferenceConfiguration) -> Response:
    """The answer to a request, which is sent again after broken connections and after 429, 503 and 504.

    The server's ``Retry-After`` says how long to wait; without one the wait doubles each time, between half and all of it by chance.
    The last answer is given back whatever its status. Redirects of the same server are followed.
    """
    return await exchanged(connection, connection.send, request, configuration)


async def exchanged(connection: Connection, send: Send[Answered], request: Request, configuration: InferenceConfiguration) -> Answered:
    """As ``exchange``, of what ``send`` gives."""

    async def follow() -> Answered:
        current, response = request, await send(request)
        for _ in range(MAX_REDIRECTS):
            there = redirected(current, response)
            if there is None:
                break
            current, response = there, await send(there)
        return response

    return await retried(connection, follow, configuration)


async def retried(connection: Connection, send: Job[Answered], configuration: InferenceConfiguration) -> Answered:
    """What ``send`` gives, tried again as ``exchange`` says."""
    attempt = 0
    while True:
        try:
            response = await send()
        except ConnectionFailed:
            if attempt >= configuration.max_retries:
                raise
            seconds = _backoff(attempt, configuration)
        else:
            if response.status_code not in RETRYABLE or attempt >= configuration.max_retries:
                return response
            retry_after = retry_after_of(response)
            if retry_after is not None and retry_after > configuration.max_retry_wait_s:
                return response
            jitter = random.uniform(1.0, 1.0 + _RETRY_AFTER_JITTER)  # nosec B311 # spreads clients, keeps no secret
            seconds = _backoff(attempt, configuration) if retry_after is None else retry_after * jitter
        attempt += 1
        await connection.wait(seconds)


def _backoff(attempt: int, configuration: InferenceConfiguration) -> float:
    longest = min(configuration.retry_wait_s * 2.0**attempt, _MAX_BACKOFF_S)
    return random.uniform(longest / 2, longest)  # nosec B311 # spreads clients, keeps no secret
