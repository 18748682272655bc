"""What becomes known of a streamed request before its outcome, and its way from the engine's thread into the event loop.

In: the engine's events about each image, in its thread. Out: an asynchronous iterator in the event loop. ``Crossing`` is the only place
where they cross. Knows nothing of the engine's queue, of fetching and of APIs.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from florence2.errors import EngineClosed, InvalidRequest

if TYPE_CHECKING:  # the engine brings torch, which the server's start need not wait for
    from florence2.engine.events import Event


@dataclass(frozen=True)
class Queued:
    """Every prompt about every image is in the engine's queue: from here on nothing can be wrong with the request.

    Attributes:
        model_id: the canonical id of the model.
        load_s: how long loading the model took.
        is_cold_start: the request had to wait for that.
    """

    model_id: str
    load_s: float
    is_cold_start: bool


@dataclass(frozen=True)
class ImageEvent:
    """An event of the engine about one image.

    Attributes:
        image_index: which of the request's images, from 0.
        event: the event; its ``index`` is that of the prompt.
        image_size: width and height of the image in pixels, after its EXIF rotation.
    """

    image_index: int
    event: Event
    image_size: tuple[int, int]


@dataclass(frozen=True)
class ImageFailed:
    """The error that one image has in place of an answer, where the request keeps going.

    Attributes:
        image_index: which of the request's images, from 0.
        error: its error, as the outcome has it.
    """

    image_index: int
    error: InvalidRequest


Happening = Queued | ImageEvent | ImageFailed
Report = Callable[[tuple[int, int], "Event"], None]
"""A callback for the engine's events about one image; it takes the image's size first."""


class Crossing:
    """Calls from other threads into an event loop, in their order.

    Waking the loop lets go of the interpreter's lock. So it is woken once for all calls that come before its next turn: one step of an
    engine reports events of many requests.

    Args:
        loop: the event loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._calls: deque[Callable[[], None]] = deque()
        self._is_woken = False

    def call(self, function: Callable[[], None]) -> None:
        """Call a function in the event loop. May be called in any thread."""
        self._calls.append(function)
        if not self._is_woken:
            self._is_woken = True
            self.loop.call_soon_threadsafe(self._call_all)

    def _call_all(self) -> None:
        self._is_woken = False  # first: what is added from here on wakes the loop again
        for _ in range(len(self._calls)):
            self._calls.popleft()()


class EventRelay(AsyncIterator[Happening]):
    """What happens to one request, for one reader in the event loop. Nothing passes before all of its images are in the engine's queue.

    Args:
        num_images: how many images the request has.
        crossing: leads into the event loop.
    """

    def __init__(self, num_images: int, crossing: Crossing) -> None:
        self._crossing = crossing
        self._waiting = set(range(num_images))
        self._held: list[Happening] = []
        self._passed: asyncio.Queue[Happening | None] = asyncio.Queue()

    def begin(self, queued: Queued) -> None:
        """Note what is known once the model is there."""
        self._held.insert(0, queued)

    def image(self, index: int) -> ImageEvents:
        """What reports about one of the images."""
        return ImageEvents(self, index)

    def send(self, event: ImageEvent) -> None:
        """Pass an event on. Called in any thread."""
        self._crossing.call(partial(self._put, event))

    def settle(self, index: int, failure: ImageFailed | None = None) -> None:
        """Note that an image is in the engine's queue, or has failed."""
        if failure is not None:
            self._put(failure)
        self._waiting.discard(index)
        if not self._waiting:
            held, self._held = self._held, []
            for happening in held:
                self._passed.put_nowait(happening)

    def end(self) -> None:
        """Note that nothing more comes."""
        self._passed.put_nowait(None)

    async def __anext__(self) -> Happening:
        """The next one; waits for it."""
        happening = await self._passed.get()
        if happening is None:
            raise StopAsyncIteration
        return happening

    def _put(self, happening: Happening) -> None:
        if self._waiting:
            self._held.append(happening)
        else:
            self._passed.put_nowait(happening)


class ImageEvents:
    """The events about one image.

    Attributes:
        first_at: when the first text or object came, by ``time.perf_counter``; None: none yet.
    """

    def __init__(self, relay: EventRelay, index: int) -> None:
        self.first_at: float | None = None
        self._relay = relay
        self._index = index
        self._reported: dict[int, list[Event]] = defaultdict(list)
        self._num_engines = 0

    def callback(self) -> Report:
        """The callback for one engine. What another engine before it has reported is not passed on again.

        It raises ``EngineClosed`` if this engine's answer begins otherwise than that of the one before: what was sent can't be taken back.
        """
        self._num_engines += 1
        number, counts = self._num_engines, Counter[int]()

        def report(image_size: tuple[int, int], event: Event) -> None:
            reported, place = self._reported[event.index], counts[event.index]
            if number != self._num_engines:
                return  # a step of the closed engine that was still running
            counts[event.index] += 1
            if place < len(reported):
                if _content(reported[place]) != _content(event):
                    raise EngineClosed("the model was closed in the middle of the answer; send the request again")
                return
            reported.append(event)
            if self.first_at is None and getattr(event, "text", True):
                self.first_at = time.perf_counter()
            self._relay.send(ImageEvent(self._index, event, image_size))

        return report

    def note_queued(self) -> None:
        """Note that all prompts about the image are in the engine's queue."""
        self._relay.settle(self._index)

    def note_failure(self, error: InvalidRequest) -> None:
        """Report the error that stands in the place of the image's answer."""
        self._relay.settle(self._index, ImageFailed(self._index, error))


def _content(event: Event) -> object:
    """What a reader has seen of an event; probabilities differ in their last digits from one batch to the next."""
    from florence2.engine.events import TokensDecided

    return (event.token_ids, event.text) if isinstance(event, TokensDecided) else (event.object.label, event.object.outlines)
