"""What becomes known of a streamed request before its outcome, and its way from the engine's thread into the event loop.

In: the engine's events about each image, in its thread. Out: an asynchronous iterator in the event loop. ``Crossing`` is the only place
where they cross. Knows nothing of the engine's queue, of fetching and of APIs.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from florence2.errors import EngineClosed, InvalidRequest

if TYPE_CHECKING:  # the engine brings torch, which the server's start need not wait for
    from florence2.answer_events import Event
    from florence2.results import FoundObject


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


@dataclass
class _Reported:
    """How much of the answer to one prompt was reported."""

    token_ids: tuple[int, ...] = ()
    text: str = ""
    objects: tuple[FoundObject, ...] = ()

    def add(self, event: Event) -> None:
        from florence2.answer_events import TokensDecided

        if isinstance(event, TokensDecided):
            self.token_ids += event.token_ids
            self.text += event.text
        else:
            self.objects += (event.object,)

    def rest(self, event: Event, sent: _Reported) -> Event | None:
        """What was not sent yet of an event that follows this; None: nothing.

        Raises:
            EngineClosed: something else was sent.
        """
        from florence2.answer_events import TokensDecided

        after = replace(self)
        after.add(event)
        if not after._agrees(sent):
            raise EngineClosed("the model was closed in the middle of the answer; send the request again")
        if not isinstance(event, TokensDecided):
            return event if len(after.objects) > len(sent.objects) else None
        known = max(0, len(sent.token_ids) - len(self.token_ids))
        if known >= len(event.token_ids):
            return None
        new_text = after.text[max(len(sent.text), len(self.text)) :]
        return replace(event, token_ids=event.token_ids[known:], text=new_text, log_probabilities=event.log_probabilities[known:])

    def _agrees(self, other: _Reported) -> bool:
        """Whether one is the beginning of the other.

        Scores are not compared: they differ in their last digits from one batch to the next.
        """
        pairs = zip(self.objects, other.objects, strict=False)
        return (
            all(mine == theirs for mine, theirs in zip(self.token_ids, other.token_ids, strict=False))
            and (self.text.startswith(other.text) or other.text.startswith(self.text))
            and all((mine.label, mine.outlines) == (theirs.label, theirs.outlines) for mine, theirs in pairs)
        )


class ImageEvents:
    """The events about one image.

    Attributes:
        first_at: when the first text or object came, by ``time.perf_counter``; None: none yet.
    """

    def __init__(self, relay: EventRelay, index: int) -> None:
        self.first_at: float | None = None
        self._relay = relay
        self._index = index
        self._sent: dict[int, _Reported] = defaultdict(_Reported)
        self._num_engines = 0

    def callback(self) -> Report:
        """The callback for one engine. What another engine before it has reported is not passed on again.

        It raises ``EngineClosed`` if this engine's answer begins otherwise than that of the one before: what was sent can't be taken back.
        """
        self._num_engines += 1
        number, own = self._num_engines, defaultdict[int, _Reported](_Reported)

        def report(image_size: tuple[int, int], event: Event) -> None:
            if number != self._num_engines:
                return  # a step of the closed engine that was still running
            sent, new = self._sent[event.index], event
            if number > 1:
                new = own[event.index].rest(event, sent)
                own[event.index].add(event)
            if new is None:
                return
            sent.add(new)
            if self.first_at is None and getattr(new, "text", True):
                self.first_at = time.perf_counter()
            self._relay.send(ImageEvent(self._index, new, image_size))

        return report

    def note_queued(self) -> None:
        """Note that all prompts about the image are in the engine's queue."""
        self._relay.settle(self._index)

    def note_failure(self, error: InvalidRequest) -> None:
        """Report the error that stands in the place of the image's answer."""
        self._relay.settle(self._index, ImageFailed(self._index, error))
