"""Clients of a cluster that check every answer: each request has a number, and its answer has to tell that number.

Engines are ``fixtures.fake_replica``: a prompt of plain words is answered with these words, and replicas note what they have begun and
ended. In: a port and how many clients. Out: what became of every request, second by second.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.server_under_load import exchange

SCENE = Path(__file__).resolve().parents[1] / "examples" / "scene.png"
PATIENCE_S = 60.0  # what takes longer has not ended
PAUSE_S = 0.2  # a client that is told to try again does not hammer


@dataclass(frozen=True)
class Ended:
    """One request that has ended.

    Attributes:
        end: "200", another status, "hangs" or how its connection ended.
        sent_at: by ``time.monotonic``, and so is ``ended_at``.
        is_right: it is an answer, and that of this request.
        is_clear: it is an error that says by ``Retry-After`` when to come back.
    """

    end: str
    sent_at: float
    ended_at: float
    is_right: bool
    is_clear: bool


class Load:
    """Clients in a thread of their own that ask one request after the other until they are stopped.

    Args:
        port: where the cluster listens.
        num_clients: so many ask at once.
        share_streamed: so many of their requests ask for a stream, 0 to 1.
        are_checked: an answer has to tell the number of its request; a real model can't.

    Attributes:
        ended: what has ended so far.
    """

    def __init__(self, port: int, num_clients: int, share_streamed: float = 0.25, *, are_checked: bool = True) -> None:
        self.ended: list[Ended] = []
        self.num_sent = 0
        self._port, self._num_clients = port, num_clients
        self._every = round(1 / share_streamed) if share_streamed else 0
        self._picture, self._are_checked = base64.b64encode(_jpeg()).decode(), are_checked
        self._is_over = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Send no more, and wait until all have ended."""
        self._is_over = True
        self._thread.join()

    def told(self) -> dict[str, Any]:
        """The counts of everything so far."""
        ended = list(self.ended)
        errors = [one for one in ended if one.end != "200"]
        return {
            "sent": self.num_sent,
            "ended": len(ended),
            "by_end": dict(sorted(Counter(one.end for one in ended).items())),
            "wrong_answers": sum(one.end == "200" and not one.is_right for one in ended),
            "errors_without_retry_after": sum(not one.is_clear for one in errors),
            "slowest_s": round(max((one.ended_at - one.sent_at for one in ended), default=0.0), 2),
        }

    def answered_after(self, moment: float, in_a_row: int = 20) -> float | None:
        """How long after a moment the last request was sent that failed, if so many were answered since; None: it still fails."""
        later = sorted((one for one in self.ended if one.ended_at >= moment), key=lambda one: one.ended_at)
        failed = [index for index, one in enumerate(later) if one.end != "200"]
        if len(later) - (failed[-1] + 1 if failed else 0) < in_a_row:
            return None
        return round(later[failed[-1]].ended_at - moment, 2) if failed else 0.0

    async def _run(self) -> None:
        await asyncio.gather(*(self._client() for _ in range(self._num_clients)))

    async def _client(self) -> None:
        while not self._is_over:
            self.num_sent += 1
            number = self.num_sent
            ended = await self._ask(number, is_streamed=bool(self._every) and number % self._every == 0)
            self.ended.append(ended)
            if ended.end != "200":
                await asyncio.sleep(PAUSE_S)

    async def _ask(self, number: int, *, is_streamed: bool) -> Ended:
        image = {"type": "base64", "value": self._picture}
        body = json.dumps(
            {"model_id": "florence-2-demo", "prompt": words(number) if self._are_checked else "<OD>", "image": image, "stream": is_streamed}
        ).encode()
        sent_at = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE_S):
                response = await exchange(self._port, body, "/infer/lmm")
        except TimeoutError:
            response = b"hangs"
        except (OSError, asyncio.IncompleteReadError) as error:
            response = type(error).__name__.encode()
        return _ended(number if self._are_checked else None, response, sent_at)


def words(number: int) -> str:
    """The prompt of a request."""
    return f"request number {number} of all"


def _jpeg() -> bytes:
    file = io.BytesIO()
    with Image.open(SCENE) as picture:
        picture.convert("RGB").save(file, "JPEG", quality=80)
    return file.getvalue()


def _ended(number: int | None, response: bytes, sent_at: float) -> Ended:
    """What a response means."""
    now = time.monotonic()
    head, _, content = response.partition(b"\r\n\r\n")
    status = re.match(rb"HTTP/1\.1 (\d+)", head)
    if status is None:
        return Ended(head.decode(errors="replace")[:40] or "connection closed", sent_at, now, is_right=False, is_clear=False)
    is_right = number is None or words(number).encode() in content
    is_clear = b"\nretry-after: " in head.lower()
    if b"text/event-stream" not in head:
        length = re.search(rb"\ncontent-length: (\d+)", head.lower())
        is_whole = length is None or len(content) >= int(length.group(1))
        return Ended(status.group(1).decode() if is_whole else "broke off", sent_at, now, is_right, is_clear)
    if b"event: done" in content:
        return Ended("200", sent_at, now, is_right, is_clear)
    failed = re.search(rb'event: error\ndata: .*?"status":\s*(\d+)', content)
    return Ended(f"event of {failed.group(1).decode()}" if failed else "stream broke off", sent_at, now, False, failed is not None)


def twice(counts: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """What replicas noted: requests that were answered by two of them, and those that were begun by two because the first was lost."""
    return {f"{what}_twice": sum(count > 1 for count in counts[what].values()) for what in ("begun", "ended")}
