"""How requests are sent: two ways to wait.

``Blocking`` and ``Awaiting`` offer the same coroutines: ``send``, ``stream``, ``fetch``, ``wait``, ``work``, ``gather`` and ``merge``.
Those of ``Blocking`` never give up control, so that ``run_blocking`` and ``iterate_blocking`` can drive them without an event loop, and
everything above is written once. Knows nothing of images or answers.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import aclosing, closing, contextmanager, suppress
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import httpx2

from florence2.certificates import certificate_hint
from florence2.client.errors import CallTimeout, ConnectionFailed, InferenceError, InvalidParameter, UnexpectedAnswer
from florence2.client.http_clients import awaiting_client
from florence2.client.merging import LoopThread, merged
from florence2.client.wire import USER_AGENT, Request, Response, ResponseHead
from florence2.errors import InvalidOption
from florence2.proxies import proxy_for
from florence2.url_fetch import Fetcher, fetch_blocking
from florence2.url_policy import FetchPolicy

T = TypeVar("T")
Job = Callable[[], Coroutine[Any, Any, T]]
"""Makes the coroutine that does one part of the work."""
Part = Callable[["Connection"], AsyncGenerator[T, None]]
"""Makes the generator of one part of a stream, over the connection that it is given."""

_INTERRUPTED = "the stream was closed in another thread"


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

    def merge(self, parts: Sequence[Part[T]], limit: int) -> AsyncGenerator[T, None]:
        """What the parts yield, as it comes, at most ``limit`` under way at once. The first error stops the rest, and so does closing."""
        ...


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
    """

    def __init__(self, http: httpx2.Client) -> None:
        self._http = http
        self._interrupted = threading.Event()
        self._wake: Callable[[], None] = lambda: None

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
        self._wake = partial(_shut_down, answer)
        if self._interrupted.is_set():  # while the answer was waited for
            answer.close()
            raise InferenceError(_INTERRUPTED)

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
        if self._interrupted.wait(seconds):
            raise InferenceError(_INTERRUPTED)

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

    async def merge(self, parts: Sequence[Part[T]], limit: int) -> AsyncGenerator[T, None]:
        """See ``Connection``. Several parts have connections of their own, in a thread that can be ended at any time."""
        if len(parts) == 1:
            async with aclosing(parts[0](self)) as items:
                async for item in items:
                    yield item
            return
        with closing(LoopThread(partial(_merged_apart, parts, limit))) as merged_items:
            self._wake = merged_items.close
            if self._interrupted.is_set():
                return
            for item in merged_items:
                yield item

    def interrupt(self) -> None:
        """End what a stream waits for in another thread: that fails there, or ends, and nothing is sent again."""
        self._interrupted.set()
        self._wake()


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

    def merge(self, parts: Sequence[Part[T]], limit: int) -> AsyncGenerator[T, None]:
        """See ``Connection``."""
        return merged([partial(part, self) for part in parts], limit)


async def _merged_apart(parts: Sequence[Part[T]], limit: int) -> AsyncGenerator[T, None]:
    """The parts merged over new connections."""
    async with awaiting_client() as http, aclosing(Awaiting(http).merge(parts, limit)) as items:
        async for item in items:
            yield item


def _shut_down(answer: httpx2.Response) -> None:
    """End the connection of an answer that another thread reads, which wakes that thread."""
    stream = answer.extensions.get("network_stream")
    connected = stream.get_extra_info("socket") if stream is not None else None
    if isinstance(connected, socket.socket):
        with suppress(OSError):  # it has ended by itself
            socket.socket.shutdown(connected, socket.SHUT_RDWR)  # below TLS, whose state belongs to the other thread


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
