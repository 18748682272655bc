"""How requests are sent: two ways to wait, one policy for trying again.

``Blocking`` and ``Awaiting`` offer the same four coroutines: ``send``, ``wait``, ``work`` and ``gather``. Those of ``Blocking``
never give up control, so that ``run_blocking`` can drive one to its end without an event loop, and everything above is written
once. Knows nothing of images or answers.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from functools import lru_cache
from ssl import SSLContext
from typing import Any, Protocol, TypeVar

import httpx

from florence2.client.configuration import InferenceConfiguration
from florence2.client.errors import CallTimeout, ConnectionFailed, InferenceError, InvalidParameter, UnexpectedAnswer
from florence2.client.wire import MAX_IMAGE_REDIRECTS, RETRYABLE, Request, Response, retry_after_of

T = TypeVar("T")
Job = Callable[[], Coroutine[Any, Any, T]]
"""Makes the coroutine that does one part of the work."""

_MAX_BACKOFF_S = 30.0
_RETRY_AFTER_JITTER = 0.1  # clients that were told to wait equally long come back one after the other


class Connection(Protocol):
    """A way to wait for the network, for time, for other work, and for several things at once."""

    async def send(self, request: Request) -> Response:
        """The server's answer, whatever its status.

        Raises:
            ConnectionFailed: no answer came, or not all of it.
            CallTimeout: it took too long.
        """
        ...

    async def wait(self, seconds: float) -> None:
        """Let time pass."""
        ...

    async def work(self, function: Callable[[], T]) -> T:
        """What a function that blocks gives back."""
        ...

    async def gather(self, jobs: Sequence[Job[T]], limit: int) -> list[T]:
        """What the jobs give back, in their order, at most ``limit`` under way at once. The first error stops the rest."""
        ...


async def exchange(connection: Connection, request: Request, configuration: InferenceConfiguration) -> Response:
    """The answer to a request, which is sent again after broken connections and after 429, 503 and 504.

    The server's ``Retry-After`` says how long to wait; without one the wait doubles each time, between half and all of it by chance.
    The last answer is given back whatever its status.
    """
    attempt = 0
    while True:
        try:
            response = await connection.send(request)
        except ConnectionFailed:
            if attempt >= configuration.max_retries:
                raise
            seconds = _backoff(attempt, configuration)
        else:
            if response.status_code not in RETRYABLE or attempt >= configuration.max_retries:
                return response
            asked = retry_after_of(response)
            if asked is not None and asked > configuration.max_retry_wait_s:
                return response
            seconds = _backoff(attempt, configuration) if asked is None else asked * random.uniform(1.0, 1.0 + _RETRY_AFTER_JITTER)
        attempt += 1
        await connection.wait(seconds)


def run_blocking(coroutine: Coroutine[Any, Any, T]) -> T:
    """What a coroutine over a ``Blocking`` connection gives back."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    raise RuntimeError("a coroutine that was to block has waited for an event loop")


class Blocking:
    """Waits by blocking the thread.

    Args:
        http: the client whose connections are used.
        sleep: what waits; another in tests.
    """

    def __init__(self, http: httpx.Client, sleep: Callable[[float], None] = time.sleep) -> None:
        self._http = http
        self._sleep = sleep

    async def send(self, request: Request) -> Response:
        """See ``Connection``."""
        try:
            with self._http.stream(**_arguments(request)) as answer:
                content = bytearray()
                for chunk in answer.iter_bytes():
                    content += chunk
                    _check_bytes(content, request)
                return _response(answer, content)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _translated(error, request) from error

    async def wait(self, seconds: float) -> None:
        """See ``Connection``."""
        self._sleep(seconds)

    async def work(self, function: Callable[[], T]) -> T:
        """See ``Connection``."""
        return function()

    async def gather(self, jobs: Sequence[Job[T]], limit: int) -> list[T]:
        """See ``Connection``."""
        if min(limit, len(jobs)) < 2:
            return [await job() for job in jobs]
        with ThreadPoolExecutor(min(limit, len(jobs)), thread_name_prefix="florence2-client") as threads:
            futures = [threads.submit(lambda job=job: run_blocking(job())) for job in jobs]
            try:
                for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                    future.result()
                return [future.result() for future in futures]
            finally:
                threads.shutdown(wait=False, cancel_futures=True)


class Awaiting:
    """Waits in the running asyncio loop.

    Args:
        http: the client whose connections are used.
    """

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def send(self, request: Request) -> Response:
        """See ``Connection``."""
        try:
            async with self._http.stream(**_arguments(request)) as answer:
                content = bytearray()
                async for chunk in answer.aiter_bytes():
                    content += chunk
                    _check_bytes(content, request)
                return _response(answer, content)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _translated(error, request) from error

    async def wait(self, seconds: float) -> None:
        """See ``Connection``."""
        await asyncio.sleep(seconds)

    async def work(self, function: Callable[[], T]) -> T:
        """See ``Connection``."""
        return await asyncio.to_thread(function)

    async def gather(self, jobs: Sequence[Job[T]], limit: int) -> list[T]:
        """See ``Connection``."""
        free = asyncio.Semaphore(limit)

        async def one(job: Job[T]) -> T:
            async with free:
                return await job()

        tasks = [asyncio.ensure_future(one(job)) for job in jobs]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def http_settings() -> dict[str, Any]:
    """The arguments for either kind of HTTP client; how many requests are under way is bounded elsewhere."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
    return {"verify": _certificates(), "max_redirects": MAX_IMAGE_REDIRECTS, "limits": limits}


@lru_cache(maxsize=1)
def _certificates() -> SSLContext:
    """What servers are checked by; reading it takes longer than many a call."""
    return httpx.create_ssl_context()


def _arguments(request: Request) -> dict[str, Any]:
    return {
        "method": request.method,
        "url": request.url,
        "headers": dict(request.headers),
        "content": request.content,
        "timeout": httpx.Timeout(request.timeout_s, connect=request.connect_timeout_s),
        "follow_redirects": request.follow_redirects,
    }


def _response(answer: httpx.Response, content: bytearray) -> Response:
    return Response(answer.status_code, {name.lower(): value for name, value in answer.headers.items()}, bytes(content))


def _check_bytes(content: bytearray, request: Request) -> None:
    if request.max_bytes is not None and len(content) > request.max_bytes:
        raise UnexpectedAnswer(f"{request.name} gives more than {request.max_bytes} bytes, too many for an image")


def _translated(error: httpx.HTTPError | httpx.InvalidURL, request: Request) -> InferenceError:
    """The client's own error for one of httpx."""
    reason = str(error) or type(error).__name__
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
        return ConnectionFailed(f"no connection for {request.name} at {_host(request)}: {reason}; is the server running?")
    if isinstance(error, httpx.TimeoutException):
        return CallTimeout(f"{request.name} was silent for longer than {request.timeout_s} s; the configuration's timeout_s sets how long")
    if isinstance(error, (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ProxyError)):
        return ConnectionFailed(f"the connection to {_host(request)} broke off during {request.name}: {reason}")
    if isinstance(error, (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError)):
        # Not the reason: it may quote a header, and with it the key.
        return InvalidParameter(f"{request.name} can't be sent: its address or one of its headers is malformed")
    return UnexpectedAnswer(f"the answer to {request.name} can't be read: {reason}")


def _host(request: Request) -> str:
    return "/".join(request.url.split("/")[:3])


def _backoff(attempt: int, configuration: InferenceConfiguration) -> float:
    longest = min(configuration.retry_wait_s * 2.0**attempt, _MAX_BACKOFF_S)
    return random.uniform(longest / 2, longest)
