"""What becomes known of an answer before it is there: in order, once each, and nothing for who has left."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import pytest

from fixtures.fake_engine import FakeEngine
from florence2.answer_events import Event, ObjectFound, TokensDecided
from florence2.errors import EngineClosed, EngineFailed, InvalidImage
from florence2.image_files import Structure, inspect
from florence2.results import FoundObject
from florence2.server.inference.events import Crossing, EventRelay, ImageEvent, ImageFailed, Queued
from florence2.server.inference.models import Models
from florence2.server.inference.request import ImageAnswer, InferenceRequest, Outcome, RequestPrompt
from florence2.server.inference.service import InferenceService
from florence2.server.settings import Settings
from florence2.tasks.prompt import parse_prompt
from tests.server.fakes import image_bytes
from tests.server.scripted import ScriptedEngine

pytestmark = pytest.mark.anyio


class Picture:
    """An image of a request, which may be fetched late, or be none."""

    label = "test"

    def __init__(self, data: bytes | None = None, gate: asyncio.Event | None = None) -> None:
        self._data = image_bytes() if data is None else data
        self._gate = gate

    async def fetch(self) -> object:
        if self._gate is not None:
            await self._gate.wait()
        return self._data

    def read(self, fetched: object) -> Structure:
        assert isinstance(fetched, bytes)
        if (structure := inspect(fetched)) is None:
            raise InvalidImage("no image", field="image")
        return structure

    def describe(self, error: Any) -> Any:
        return error


def service_of(*engines: FakeEngine) -> tuple[InferenceService, Models]:
    """A service whose model answers with the first engine, and with the next ones when that is closed."""
    settings, left = Settings(), list(engines)
    models = Models(settings, lambda _: left.pop(0))  # type: ignore[arg-type, return-value]
    return InferenceService(settings, models), models


def asking(*images: Picture, prompts: Sequence[str] = ("<OD>",), keeps_going: bool = False, **options: Any) -> InferenceRequest:
    return InferenceRequest(
        "florence-2-demo",
        images or (Picture(),),
        [RequestPrompt(parse_prompt(prompt), None if len(prompts) == 1 else f"prompts[{index}]") for index, prompt in enumerate(prompts)],
        options,
        keeps_going=keeps_going,
    )


async def all_of(service: InferenceService, request: InferenceRequest) -> list[Any]:
    return [happening async for happening in service.stream(request)]


async def until_error(service: InferenceService, request: InferenceRequest) -> tuple[list[Any], Exception]:
    """What comes before the error, and the error."""
    happened: list[Any] = []
    try:
        async for one in service.stream(request):
            happened.append(one)  # noqa: PERF401 - what came before the error counts
    except Exception as error:
        return happened, error
    raise AssertionError("no error was raised")


async def test_events_come_in_order_and_at_last_the_outcome() -> None:
    service, _ = service_of(FakeEngine())
    request = asking(Picture(), Picture(), prompts=["<OD>", "<CAPTION>"])
    happened = await all_of(service, request)
    assert [type(one) for one in happened].count(Queued) == 1
    assert happened[0] == Queued("florence-2-demo", happened[0].load_s, is_cold_start=True)
    outcome = happened[-1]
    assert isinstance(outcome, Outcome)
    for image_index, answer in enumerate(outcome.answers):
        assert isinstance(answer, ImageAnswer)
        for index, result in enumerate(answer.results):
            events = [one.event for one in happened[1:-1] if one.image_index == image_index and one.event.index == index]
            assert "".join(event.text for event in events if isinstance(event, TokensDecided)) == result.text
            assert tuple(event.object for event in events if isinstance(event, ObjectFound)) == result.objects
    again = await service.answer(request)
    assert [answer.results for answer in again.answers] == [answer.results for answer in outcome.answers]  # type: ignore[union-attr]


async def test_nothing_comes_before_all_images_are_queued() -> None:
    gate = asyncio.Event()
    engine = FakeEngine()
    service, _ = service_of(engine)
    async with aclosing(service.stream(asking(Picture(), Picture(gate=gate)))) as stream:
        first = asyncio.ensure_future(anext(stream, None))
        while not engine.futures:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.02)
        assert not first.done()
        gate.set()
        assert isinstance(await first, Queued)
        assert {one.image_index for one in [each async for each in stream][:-1]} == {0, 1}  # type: ignore[union-attr]


async def test_a_mistake_is_raised_before_anything_comes() -> None:
    service, _ = service_of(FakeEngine())
    happened, error = await until_error(service, asking(Picture(), Picture(b"none")))
    assert isinstance(error, InvalidImage)
    assert happened == []


async def test_an_image_in_the_place_of_whose_answer_an_error_stands() -> None:
    service, _ = service_of(FakeEngine())
    happened = await all_of(service, asking(Picture(), Picture(b"none"), keeps_going=True))
    (failure,) = [one for one in happened if isinstance(one, ImageFailed)]
    assert isinstance(happened[0], Queued)
    assert failure.image_index == 1
    assert failure.error is happened[-1].answers[1]
    assert isinstance(happened[-1].answers[0], ImageAnswer)


async def test_a_reader_that_leaves_cancels_what_waits_or_runs() -> None:
    engine = FakeEngine()
    engine.hold = True
    service, _ = service_of(engine)
    stream = service.stream(asking(prompts=["<OD>", "<CAPTION>"]))
    assert isinstance(await anext(stream), Queued)
    await stream.aclose()
    await asyncio.sleep(0)
    assert [future.cancelled() for future in engine.futures] == [True, True]


def box(label: str, index: int) -> ObjectFound:
    return ObjectFound(FoundObject(label, (0, 0, 1, 1)), [0, 0, 1, 1], index)


SCRIPT: list[Event] = [TokensDecided((0,), "", "<s>"), TokensDecided((7,), "a 고양이", "<s>a 고양이", 0, (-0.5,)), box("고양이 🐈", 0)]
REST: list[Event] = [TokensDecided((8,), " b", "<s>a 고양이 b"), box("b", 1)]


@pytest.mark.parametrize("num_reported", range(len(SCRIPT) + 1))
async def test_another_engine_goes_on_where_the_closed_one_stopped(num_reported: int) -> None:
    again: list[Event] = [TokensDecided((0,), "", "<s>", 0, (-0.1,)), TokensDecided((7,), "a 고양이", "<s>a 고양이", 0, (-0.50001,))]
    service, _ = service_of(ScriptedEngine(SCRIPT[:num_reported], EngineClosed("closed")), ScriptedEngine([*again, SCRIPT[2], *REST]))
    happened = await all_of(service, asking())
    assert [type(one) for one in happened] == [Queued, *[ImageEvent] * 5, Outcome]
    texts = [one.event.text for one in happened[1:-1] if isinstance(one.event, TokensDecided)]
    assert texts == ["", "a 고양이", " b"]
    assert [one.event.object.label for one in happened[1:-1] if isinstance(one.event, ObjectFound)] == ["고양이 🐈", "b"]


WHOLE: list[Event] = [
    TokensDecided((0, 7, 8), "a 고양이 b", "<s>a 고양이 b", 0, (-0.1, -0.5, -0.2)),
    box("고양이 🐈", 0),
    TokensDecided((9, 2), " c", "<s>a 고양이 b c</s>", 0, (-0.3, -0.4)),
    box("c", 1),
]


@pytest.mark.parametrize("num_reported", range(len(SCRIPT) + 1))
async def test_another_engine_may_report_several_tokens_at_once(num_reported: int) -> None:
    """How many tokens an event has depends on how long the steps took."""
    service, _ = service_of(ScriptedEngine(SCRIPT[:num_reported], EngineClosed("closed")), ScriptedEngine(WHOLE))
    events = [one.event for one in (await all_of(service, asking()))[1:-1]]
    tokens = [event for event in events if isinstance(event, TokensDecided)]
    assert [token_id for event in tokens for token_id in event.token_ids] == [0, 7, 8, 9, 2]
    assert "".join(event.text for event in tokens) == "a 고양이 b c"
    assert [event.object.label for event in events if isinstance(event, ObjectFound)] == ["고양이 🐈", "c"]


async def test_an_answer_that_another_engine_would_take_back_fails() -> None:
    service, _ = service_of(ScriptedEngine(SCRIPT, EngineClosed("closed")), ScriptedEngine([TokensDecided((9,), "other", "<s>other")]))
    happened, error = await until_error(service, asking())
    assert isinstance(error, EngineFailed)
    assert "in the middle of the answer" in error.message
    assert [type(one) for one in happened] == [Queued, *[ImageEvent] * 3]


async def test_events_that_many_threads_report_all_come() -> None:
    relay = EventRelay(1, Crossing(asyncio.get_running_loop()))
    events = [relay.image(0) for _ in range(8)]
    relay.begin(Queued("m", 0.0, is_cold_start=False))
    threads = [
        threading.Thread(
            target=lambda report: [report((8, 8), TokensDecided((n,), str(n), "")) for n in range(200)], args=(each.callback(),)
        )
        for each in events
    ]
    for thread in threads:
        thread.start()
    events[0].note_queued()
    assert isinstance(await anext(relay), Queued)
    numbers = [(await anext(relay)).event.token_ids[0] for _ in range(1600)]  # type: ignore[union-attr]
    assert sorted(numbers) == sorted([*range(200)] * 8)
    for thread in threads:
        thread.join()
