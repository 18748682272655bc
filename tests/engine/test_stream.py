"""Answers as they are generated: the same result, events that hold, and rows that are freed when nobody listens any more."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import florence2
from florence2.answer_events import Event, ObjectFound, TokensDecided
from florence2.engine import decided
from florence2.engine.answer import Interpreter
from florence2.engine.engine import Engine
from florence2.engine.next_tokens import best_tokens
from florence2.engine.request import start_search
from florence2.engine.scheduler import Scheduler
from florence2.engine.search import SpecialTokens
from florence2.engine.stream import AnswerStream, EventQueue
from florence2.errors import EngineClosed, EngineFailed, InvalidOption, UnknownTask
from florence2.request_options import GenerationOptions
from florence2.results import Result
from florence2.tasks import build_prompt
from tests.engine.fakes import ScriptedModel, request

SHORT = 12
LONG_S = 60
# What may differ in the last digit from one run to the next, when other requests share a step.
FLOATS: dict[str, Any] = {"log_probability": None, "scores": None, "label_scores": None, "location_scores": None}


def check_events(events: Sequence[Event | Result], expected: Result) -> None:
    """They hold what the result holds, each a beginning of the next."""
    *decided, result = events
    assert isinstance(result, Result)
    assert result.log_probability == pytest.approx(expected.log_probability, rel=1e-5)
    assert (result.scores is None) == (expected.scores is None)
    assert (result.scores or []) == pytest.approx(expected.scores or [], rel=1e-4)
    assert replace(result, **FLOATS) == replace(expected, **FLOATS)
    assert [token for event in decided if isinstance(event, TokensDecided) for token in event.token_ids] == expected.token_ids
    assert [value for event in decided if isinstance(event, TokensDecided) for value in event.log_probabilities] == result.log_probabilities
    raws = [event.raw for event in decided if isinstance(event, TokensDecided)]
    assert all(after.startswith(before) for before, after in pairwise(raws))
    assert raws[-1] == expected.raw
    text = "".join(event.text for event in decided if isinstance(event, TokensDecided))
    assert text == expected.text
    check_objects(decided, result)


def check_objects(events: Sequence[Event | Result], result: Result) -> None:
    """They are the result's, to the last digit of their scores, each right after the tokens that complete it."""
    found = [event for event in events if isinstance(event, ObjectFound)]
    assert [event.object for event in found] == list(result.objects)
    assert [event.object_index for event in found] == list(range(len(found)))
    assert [event.bins for event in found] == result.bins


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize(("prompt", "options"), [("<OD>", {"scores": True}), ("<CAPTION>", {}), ("a > b", {"no_repeat_ngram_size": 3})])
def test_a_stream_ends_with_the_result_of_run(
    engine: Engine, image: Image.Image, prompt: str, num_beams: int, options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decided, "MIN_INTERVAL_S", 0.0)
    monkeypatch.setattr(decided, "MAX_INTERVAL_S", 0.0)
    expected = engine.run(image, prompt, num_beams=num_beams, max_new_tokens=40, **options)
    events = list(engine.stream(image, prompt, num_beams=num_beams, max_new_tokens=40, **options))
    check_events(events, expected)
    if num_beams == 1:
        assert sum(isinstance(event, TokensDecided) for event in events) == len(expected.token_ids)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_reports_are_no_closer_than_the_interval_and_say_the_same(
    engine: Engine, image: Image.Image, num_beams: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decided, "MIN_INTERVAL_S", 60.0)
    monkeypatch.setattr(decided, "MAX_INTERVAL_S", 60.0)
    expected = engine.run(image, "<OD>", num_beams=num_beams, max_new_tokens=40, scores=True)
    events = list(engine.stream(image, "<OD>", num_beams=num_beams, max_new_tokens=40, scores=True))
    check_events(events, expected)
    texts = [event.text for event in events if isinstance(event, TokensDecided)]
    assert sum(map(bool, texts)) == 2  # the first text at once, and the rest with the end
    assert texts[-1]


@pytest.mark.parametrize(("num_requests", "least_ms"), [(1, 20), (4, 40), (48, 100)])
def test_many_listeners_are_reported_to_less_often(
    engine: Engine, num_requests: int, least_ms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listener that takes 0.1 ms: 4 of them in a hundredth of the time are one each in 40 ms. 100 ms are the most."""
    now_ms, reported_at = [0.0], list[float]()
    monkeypatch.setattr(decided.time, "monotonic", lambda: now_ms[0] / 1000)

    def listen(_: Event) -> None:
        reported_at.append(round(now_ms[0], 3))
        now_ms[0] += 0.1

    search = start_search(GenerationOptions(num_beams=1, max_new_tokens=300, no_repeat_ngram_size=0), SpecialTokens())
    interpreter = Interpreter(build_prompt("<CAPTION>"), engine.tokenizer, (8, 8), frozenset())
    reporter = decided.Reporter(search, interpreter, listen, 0)
    word = engine.tokenizer.encode("a")[1]
    logits = torch.full((1, engine.tokenizer.vocab_size), -9.0)
    logits[0, word] = 9.0
    for step in range(299):
        now_ms[0] = max(now_ms[0], step)
        search.advance(best_tokens(logits, search.num_candidates, search.banned(), search.forced))
        reporter.report(num_requests)
    gaps = [after - before for before, after in pairwise(reported_at[1:])]  # the first is of the token that begins every answer
    assert least_ms <= min(gaps)
    assert max(gaps) <= least_ms + 1.5


def test_the_demo_streams_its_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decided, "MIN_INTERVAL_S", 0.0)  # each step is reported, however long it takes
    monkeypatch.setattr(decided, "MAX_INTERVAL_S", 0.0)
    picture = Path(__file__).parents[2] / "examples" / "scene.png"
    with florence2.load("florence-2-demo", device="cpu", precision="fp32") as demo:
        for num_beams in (1, 3):
            expected = demo.run(picture, "<OD>", num_beams=num_beams, scores=True)
            events = list(demo.stream(picture, "<OD>", num_beams=num_beams, scores=True))
            check_events(events, expected)
            places = [place for place, event in enumerate(events) if isinstance(event, ObjectFound)]
            assert len(places) > 2
            assert num_beams > 1 or places[0] < len(events) / 2


def test_several_prompts_say_whose_tokens_they_are(engine: Engine, image: Image.Image) -> None:
    events: list[Event] = []
    futures = engine.submit_many(image, ["<OD>", "<CAPTION>", "hello"], on_event=events.append, max_new_tokens=SHORT)
    results = [future.result(LONG_S) for future in futures]
    for index, result in enumerate(results):
        assert [
            token for event in events if isinstance(event, TokensDecided) and event.index == index for token in event.token_ids
        ] == result.token_ids


def test_events_reach_an_event_loop(engine: Engine, image: Image.Image) -> None:
    async def listen() -> tuple[list[int], Result]:
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        future = engine.submit(
            image, "<CAPTION>", max_new_tokens=SHORT, on_event=lambda event: loop.call_soon_threadsafe(queue.put_nowait, event)
        )
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(queue.put_nowait, None))
        ids: list[int] = []
        while (event := await queue.get()) is not None:
            assert isinstance(event, TokensDecided)
            ids += event.token_ids
        return ids, future.result()

    ids, result = asyncio.run(listen())
    assert ids == result.token_ids


def test_mistakes_are_raised_at_once(engine: Engine, image: Image.Image) -> None:
    with pytest.raises(UnknownTask):
        engine.stream(image, "<ODD>")
    with pytest.raises(InvalidOption, match="num_beams"):
        engine.stream(image, "<OD>", num_beams=99)


@pytest.mark.parametrize("end", ["close", "drop", "with"])
def test_a_stream_that_nobody_reads_is_cancelled(engine: Engine, image: Image.Image, end: str) -> None:
    stream = engine.stream(image, "<CAPTION>", num_beams=1, no_repeat_ngram_size=0)
    future = stream._future
    assert isinstance(next(stream), TokensDecided)
    if end == "close":
        stream.close()
        assert list(stream) == []
    elif end == "with":
        with stream:
            pass
    else:
        del stream
        gc.collect()
    assert future.cancelled()
    assert engine.run(image, "<OD>", max_new_tokens=SHORT).task == "<OD>"


def test_closing_before_the_first_event_is_enough(engine: Engine, image: Image.Image) -> None:
    stream = engine.stream(image, "<CAPTION>")
    future = stream._future
    del stream
    gc.collect()
    assert future.cancelled()


def test_an_engine_that_is_closed_ends_its_streams(folder: Path, image: Image.Image) -> None:
    engine = florence2.load(folder, device="cpu")
    answered, cancelled = engine.stream(image, "<OD>", max_new_tokens=3), engine.stream(image, "<CAPTION>")
    assert isinstance(list(answered)[-1], Result)
    engine.close(cancel=True)
    with pytest.raises(CancelledError):
        list(cancelled)
    assert list(cancelled) == []
    with pytest.raises(EngineClosed):
        engine.stream(image, "<OD>")


def test_the_engines_own_thread_can_not_wait_for_a_stream(engine: Engine, image: Image.Image) -> None:
    told: Future[BaseException] = Future()

    def callback(_: Future) -> None:
        try:
            next(engine.stream(image, "<OD>", max_new_tokens=SHORT))
        except EngineFailed as error:
            told.set_result(error)

    engine.submit(image, "<OD>", max_new_tokens=SHORT).add_done_callback(callback)
    assert "use submit there" in str(told.result(LONG_S))


def test_a_callback_that_raises_fails_its_own_request_alone(engine: Engine, image: Image.Image) -> None:
    expected = engine.run(image, "<OD>", max_new_tokens=SHORT)
    for error in (KeyError("mine"), SystemExit(3)):

        def broken(_: Event, error: BaseException = error) -> None:
            raise error

        failing = engine.submit(image, "<CAPTION>", on_event=broken)
        other = engine.submit(image, "<OD>", max_new_tokens=SHORT)
        caught = failing.exception(LONG_S)
        assert isinstance(caught, EngineFailed)
        assert caught.__cause__ is error
        assert "on_event raised" in caught.message
        assert other.result(LONG_S).token_ids == expected.token_ids


def scripted() -> tuple[ScriptedModel, Scheduler]:
    model = ScriptedModel()
    return model, Scheduler(model, max_rows=16)


def test_a_request_whose_caller_left_frees_its_rows_and_is_not_reported_any_more() -> None:
    model, scheduler = scripted()
    steps: list[int] = []
    model.hold.clear()
    leaving = request(GenerationOptions(num_beams=4, max_new_tokens=60))
    leaving.on_step = steps.append
    staying = request(GenerationOptions(num_beams=1, max_new_tokens=60), number=2)
    scheduler.submit([leaving, staying])
    assert model.in_step.wait(LONG_S)
    leaving.future.cancel()
    model.hold.set()
    staying.future.result(LONG_S)
    scheduler.close()
    assert steps == []
    assert model.step_rows[0] == 4
    assert set(model.step_rows[1:]) == {1}


def test_a_step_that_breaks_is_the_end_of_a_stream() -> None:
    model, scheduler = scripted()
    steps: list[int] = []
    broken = request(GenerationOptions(num_beams=1, max_new_tokens=60))

    def break_third_step(_: int) -> None:
        steps.append(1)
        if len(steps) == 2:
            model.failure["decode_step"] = RuntimeError("gone")

    broken.on_step = break_third_step
    stream = AnswerStream(broken.future, EventQueue(), scheduler.check_may_wait)
    scheduler.submit([broken])
    with pytest.raises(EngineFailed, match="gone"):
        next(stream)
    assert list(stream) == []
    assert len(steps) == 2
    scheduler.close()


def test_closing_in_another_thread_ends_the_iteration() -> None:
    model, scheduler = scripted()
    model.hold.clear()
    waiting = request(GenerationOptions(num_beams=1, max_new_tokens=60))
    stream = AnswerStream(waiting.future, EventQueue(), scheduler.check_may_wait)
    scheduler.submit([waiting])
    timer = threading.Timer(0.1, stream.close)
    timer.start()
    assert list(stream) == []
    model.hold.set()
    scheduler.close()


def test_several_threads_may_read_one_stream(engine: Engine) -> None:
    stream = engine.stream(Image.new("RGB", (32, 32), "red"), "<CAPTION>")
    read: list[list[Any]] = []
    threads = [threading.Thread(target=lambda: read.append(list(stream)), daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert sum(isinstance(event, Result) for events in read for event in events) == 1


def test_a_callback_that_is_none_is_refused_at_once(engine: Engine) -> None:
    with pytest.raises(InvalidOption, match="function of one event"):
        engine.submit(Image.new("RGB", (32, 32)), "<CAPTION>", on_event=3)  # type: ignore[arg-type]
