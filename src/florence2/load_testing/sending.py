"""One request, sent and measured: whatever becomes of it is a ``Measurement``, never an exception.

In: a planned request and when it is due. Out: times by one clock, the outcome, and what kind of failure it was. Knows nothing of the other
requests.
"""

from __future__ import annotations

import asyncio
import errno
import time
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2

from florence2.client.events import EventDecoder
from florence2.client.messages import without_secrets
from florence2.client.wire import ResponseHead, retry_after_of
from florence2.load_testing.apis import Api, BadAnswer, message_in
from florence2.load_testing.connections import Connections
from florence2.load_testing.measurement import Measurement
from florence2.load_testing.pictures import Pictures
from florence2.load_testing.workload import Planned

REFUSED = frozenset({429, 503})
OWN_LIMIT = "too many connections for this machine"  # the generator's failure, not the server's
_OWN = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS})


class Clock:
    """Seconds from the beginning of a run."""

    def __init__(self) -> None:
        self._began_s = time.perf_counter()

    def __call__(self) -> float:
        """Now."""
        return time.perf_counter() - self._began_s


class _Failed(Exception):
    """A request that has no answer.

    Args:
        error: the kind of failure.
        found: further fields of the measurement.
    """

    def __init__(self, error: str, **found: Any) -> None:
        super().__init__(error)
        self.found = {"outcome": "refused" if found.get("status") in REFUSED else "failed", "error": error, **found}


@dataclass
class _Reading:
    """What has been read of an answer so far."""

    first_event_s: float | None = None
    last_event_s: float = 0.0
    gaps_s: array[float] = field(default_factory=lambda: array("d"))
    num_tokens: int | None = None
    status: int | None = None

    def note_event(self, now_s: float) -> None:
        if self.first_event_s is None:
            self.first_event_s = now_s
        else:
            self.gaps_s.append(now_s - self.last_event_s)
        self.last_event_s = now_s

    def fields(self) -> dict[str, Any]:
        return {"first_event_s": self.first_event_s, "gaps_s": self.gaps_s, "num_tokens": self.num_tokens, "status": self.status}


class Sender:
    """Sends requests to one server.

    Args:
        url: the server's address.
        api: the form of requests.
        pictures: those that are asked about.
        headers: of each request.
        timeout_s: how long an answer may take from its sending.
        secrets: what no message may hold.
    """

    def __init__(
        self,
        url: str,
        api: Api,
        pictures: Pictures,
        *,
        headers: Mapping[str, str],
        timeout_s: float,
        is_streamed: bool = False,
        secrets: tuple[str | None, ...] = (),
    ) -> None:
        self._url, self._api, self._pictures, self._is_streamed = httpx2.URL(url + api.path), api, pictures, is_streamed
        self._headers = {"content-type": "application/json", **headers}
        self._timeout_s, self._secrets = timeout_s, secrets
        self._connections = Connections(url)

    async def send(self, planned: Planned, due_s: float, clock: Clock) -> Measurement:
        """Send one request, and say what became of it; one that is cancelled is ``unfinished``."""
        sent_s, reading = clock(), _Reading()
        found: dict[str, Any] = {"outcome": "answered"}
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._exchange(planned, reading, clock)
        except asyncio.CancelledError:
            found = {"outcome": "unfinished"}
        except TimeoutError:
            found = {"outcome": "failed", "error": "timeout", "message": f"no whole answer within {self._timeout_s:g} s"}
        except _Failed as failed:
            found = failed.found
        except BadAnswer as error:
            found = {"outcome": "failed", "error": "not an answer", "message": str(error)}
        except (httpx2.HTTPError, OSError) as error:
            found = _lost(error)
        if found.get("message"):
            found["message"] = without_secrets(found["message"], self._secrets)
        return Measurement(planned.name, due_s, sent_s, clock(), **{**reading.fields(), **found})

    async def close(self) -> None:
        """Close the connections."""
        await self._connections.close()

    async def _exchange(self, planned: Planned, reading: _Reading, clock: Clock) -> None:
        """Send, and read to the end.

        Raises:
            _Failed: there is no answer.
            BadAnswer: it is none.
        """
        picture = self._pictures.pictures[planned.picture]
        body = self._api.body(planned.prompt, picture.base64(planned.variant), picture.media_type)
        async with self._connections.send(httpx2.Request("POST", self._url, headers=self._headers, content=body)) as response:
            reading.status = response.status_code
            is_stream = response.headers.get("content-type", "").lower().startswith("text/event-stream")
            if response.status_code == 200 and self._is_streamed and is_stream:
                await self._read_events(response, reading, clock)
                return
            answer = await response.aread()
        if response.status_code != 200:
            headers = dict(response.headers)
            wait_s = retry_after_of(ResponseHead(response.status_code, headers))
            said = message_in(response.status_code, headers, answer)
            raise _Failed(str(response.status_code), status=response.status_code, message=said, retry_after_s=wait_s)
        reading.num_tokens = self._api.num_tokens(answer)

    async def _read_events(self, response: httpx2.Response, reading: _Reading, clock: Clock) -> None:
        decoder, has_ended = EventDecoder(), False
        async for piece in response.aiter_bytes():
            for event in decoder.decode(piece):
                heard = self._api.hear(event)
                if heard.kind == "error":
                    error = "error event" if heard.status is None else str(heard.status)
                    raise _Failed(error, message=heard.message, retry_after_s=heard.retry_after_s, status=heard.status or 200)
                if heard.kind == "part" or (heard.kind == "end" and reading.first_event_s is None):
                    reading.note_event(clock())
                reading.num_tokens = heard.num_tokens if heard.num_tokens is not None else reading.num_tokens
                has_ended = has_ended or heard.kind == "end"
        if not has_ended:
            raise _Failed("stream broke off", status=200, message="the stream ended without its last event")


def _lost(error: Exception) -> dict[str, Any]:
    """The kind of failure of a connection."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    if any(isinstance(one, OSError) and one.errno in _OWN for one in causes):
        kind = OWN_LIMIT
    elif isinstance(error, httpx2.ConnectError):
        kind = "no connection"
    else:
        kind = "connection broke off"
    return {"outcome": "failed", "error": kind, "message": " ".join(f"{type(error).__name__}: {error}".split())[:300]}
