"""How requests are sent: two ways to wait, one policy for trying again.

``Blocking`` and ``Awaiting`` offer the same coroutines: ``send``, ``stream``, ``fetch``, ``wait``, ``work`` and ``gather``. Those of
``Blocking`` never give up control, so that ``run_blocking`` and ``iterate_blocking`` can drive them without an event loop, and everything
above is written once. Knows nothing of images or answers.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import httpx2

from florence2.certificates import certificate_hint
from florence2.client.configuration import InferenceConfiguration
from florence2.client.errors import CallTimeout, ConnectionFailed, InferenceError, InvalidParameter, UnexpectedAnswer
from florence2.client.wire import MAX_REDIRECTS, RETRYABLE, USER_AGENT, Request, Response, ResponseHead, redirected, retry_after_of
from florence2.errors import InvalidOption
from florence2.proxies import proxy_for
from florence2.url_fetch import Fetcher, fetch_blocking
from florence2.url_policy import FetchPolicy

T = TypeVar("T")
Job = Callable[[], Coroutine[Any, Any, T]]
"""Makes the coroutine that does one part of the work."""
Answered = TypeVar("Answered", bound=ResponseHead)

_MAX_BACKOFF_S = 30.0
_RETRY_AFTER_JITTER = 0.1  # clients that were told to wait equally long come back one after the other


@dataclass(frozen=True)
class OpenResponse(ResponseHead):
    """A successful answer whose body is still to come; it has to be closed.

    Attributes:
        pieces: the body as it comes in, decompressed. Raises what ``Connection.send`` does when it breaks off or falls silent.
        close: ends the response, read to its end or not.
    """

    pieces: AsyncGenerator[bytes, None]
    close: Callable[[], Awaitable[None]]


class Connection(Protocol):
    """A way to wait for the network, for time, for other work, and for several things at once."""

    async def send(self, request: Request) -> Response:
        """The server's answer, whatever its status.

        Raises:
            ConnectionFailed: no answer came, or not all of it.
            CallTimeout: it took too long.
        """
        ...

    async def stream(self, request: Request) -> Response | OpenResponse:
        """The server's answer, open where its status is a success; every other answer is whole.

        Raises:
            ConnectionFailed: no answer came.
            CallTimeout: it took too long.
        """
        ...

    async def fetch(self, url: str, policy: FetchPolicy) -> bytes:
        """What an image's URL holds.

        Raises:
            FetchError: nothing is to be had from it.
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
    The last answer is given back whatever its status. Redirects of the same server are followed.
    """
    return await _exchanged(connection, connection.send, request, configuration)


async def open_stream(connection: Connection, request: Request, configuration: InferenceConfiguration) -> Response | OpenResponse:
    """As ``exchange``, with the answer open where it is a success: from then on nothing is sent again."""
    return await _exchanged(connection, connection.stream, request, configuration)


async def _exchanged(
    connection: Connection,
    send: Callable[[Request], Coroutine[Any, Any, Answered]],
    request: Request,
    configuration: InferenceConfiguration,
) -> Answered:
    """The answer that ``send`` gets, once redirects are followed and tries are used up."""

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
            jitter = random.uniform(1.0, 1.0 + _RETRY_AFTER_JITTER)
            seconds = _backoff(attempt, configuration) if retry_after is None else retry_after * jitter
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


def iterate_blocking(items: AsyncGenerator[T, None]) -> Iterator[T]:
    """What an async generator over a ``Blocking`` connection yields; it is closed when the caller stops iterating."""
    end = object()

    async def following() -> T | object:
        return await anext(items, end)

    async def close() -> None:
        await items.aclose()

    try:
        while (item := run_blocking(following())) is not end:
            yield item  # type: ignore[misc] - all but the end is of the generator
    finally:
        run_blocking(close())


class Blocking:
    """Waits by blocking the thread.

    Args:
        http: the client whose connections are used.
        sleep: what waits; another in tests.
    """

    def __init__(self, http: httpx2.Client, sleep: Callable[[float], None] = time.sleep) -> None:
        self._http = http
        self._sleep = sleep

    async def send(self, request: Request) -> Response:
        """See ``Connection``."""
        with _own_errors(request):
            answer = self._http.send(self._http.build_request(**_arguments(request)), stream=True)
            try:
                return _whole(answer, answer.read())
            finally:
                answer.close()

    async def stream(self, request: Request) -> Response | OpenResponse:
        """See ``Connection``."""
        with _own_errors(request):
            answer = self._http.send(self._http.build_request(**_arguments(request)), stream=True)
            if not answer.is_success:
                try:
                    return _whole(answer, answer.read())
                finally:
                    answer.close()

        async def pieces() -> AsyncGenerator[bytes, None]:
            with _own_errors(request):
                for piece in answer.iter_bytes():
                    yield piece

        async def close() -> None:
            answer.close()

        return OpenResponse(answer.status_code, _headers(answer), pieces(), close)

    async def fetch(self, url: str, policy: FetchPolicy) -> bytes:
        """See ``Connection``."""
        return fetch_blocking(policy, USER_AGENT, url)

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
            # Each in a copy of the caller's context, as tasks have it: tracing and logging know whose call it is.
            futures = [threads.submit(copy_context().run, lambda job=job: run_blocking(job())) for job in jobs]
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

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self._http = http

    async def send(self, request: Request) -> Response:
        """See ``Connection``."""
        with _own_errors(request):
            answer = await self._http.send(self._http.build_request(**_arguments(request)), stream=True)
            try:
                return _whole(answer, await answer.aread())
            finally:
                await answer.aclose()

    async def stream(self, request: Request) -> Response | OpenResponse:
        """See ``Connection``."""
        with _own_errors(request):
            answer = await self._http.send(self._http.build_request(**_arguments(request)), stream=True)
            if not answer.is_success:
                try:
                    return _whole(answer, await answer.aread())
                finally:
                    await answer.aclose()

        async def pieces() -> AsyncGenerator[bytes, None]:
            with _own_errors(request):
                async for piece in answer.aiter_bytes():
                    yield piece

        return OpenResponse(answer.status_code, _headers(answer), pieces(), answer.aclose)

    async def fetch(self, url: str, policy: FetchPolicy) -> bytes:
        """See ``Connection``."""
        fetcher = Fetcher(policy, USER_AGENT)
        try:
            return await fetcher.fetch(url)
        finally:
            await fetcher.close()

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


def _arguments(request: Request) -> dict[str, Any]:
    return {
        "method": request.method,
        "url": request.url,
        "headers": dict(request.headers),
        "content": request.content,
        "timeout": httpx2.Timeout(request.timeout_s, connect=request.connect_timeout_s),
    }


def _whole(answer: httpx2.Response, content: bytes) -> Response:
    return Response(answer.status_code, _headers(answer), content)


def _headers(answer: httpx2.Response) -> dict[str, str]:
    return {name.lower(): value for name, value in answer.headers.items()}


@contextmanager
def _own_errors(request: Request) -> Iterator[None]:
    """Errors of httpx2 as the client's own."""
    try:
        yield
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise _translated(error, request) from error
    except InvalidOption as error:  # a proxy of the environment that is none
        raise InvalidParameter(error.message, field=error.field) from None


def _translated(error: Exception, request: Request) -> InferenceError:
    """The client's own error for one of httpx2."""
    reason = str(error) or type(error).__name__
    proxy = proxy_for(request.url) if isinstance(error, httpx2.TransportError) else None
    if proxy is not None and isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError)):
        return ConnectionFailed(
            f"no connection for {request.name} to {_host(request)} by the proxy {proxy}: {reason}; "
            f"{certificate_hint(error) or 'does the proxy run and reach it? NO_PROXY names hosts that are reached without one'}"
        )
    if isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout)):
        return ConnectionFailed(
            f"no connection for {request.name} at {_host(request)}: {reason}; {certificate_hint(error) or 'is the server running?'}"
        )
    if isinstance(error, httpx2.TimeoutException):
        by = f" (by the proxy {proxy})" if proxy else ""
        return CallTimeout(f"{request.name} was silent for longer than {request.timeout_s} s{by}; timeout_s sets how long")
    if isinstance(error, (httpx2.NetworkError, httpx2.RemoteProtocolError, httpx2.ProxyError)):
        by = f" by the proxy {proxy}" if proxy else ""
        return ConnectionFailed(f"the connection to {_host(request)}{by} broke off during {request.name}: {reason}")
    if isinstance(error, (httpx2.InvalidURL, httpx2.UnsupportedProtocol, httpx2.LocalProtocolError)):
        # Not the reason: it may quote a header, and with it the key.
        return InvalidParameter(f"{request.name} can't be sent: its address or one of its headers is malformed")
    return UnexpectedAnswer(f"the answer to {request.name} can't be read: {reason}")


def _host(request: Request) -> str:
    return "/".join(request.url.split("/")[:3])


def _backoff(attempt: int, configuration: InferenceConfiguration) -> float:
    longest = min(configuration.retry_wait_s * 2.0**attempt, _MAX_BACKOFF_S)
    return random.uniform(longest / 2, longest)
