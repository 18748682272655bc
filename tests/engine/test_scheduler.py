"""Every request gets its own answer exactly once, whoever else runs, is cancelled, fails or closes."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from concurrent.futures import CancelledError, Future, wait
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from florence2.engine.request import Request
from florence2.engine.scheduler import Scheduler
from florence2.errors import EngineClosed, EngineFailed
from florence2.request_options import GenerationOptions
from tests.engine.fakes import ScriptedModel, answer_alone, image, request

PATIENCE_S = 20.0
LONG = GenerationOptions(num_beams=1, max_new_tokens=40)


def submit(scheduler: Scheduler, *requests: Request) -> list[Future]:
    scheduler.submit(requests)
    return [request.future for request in requests]


def test_mixed_requests_get_the_answers_they_get_alone(scheduler: Scheduler, model: ScriptedModel) -> None:
    cases = []
    for index in range(24):
        options = GenerationOptions(num_beams=1 + index % 4, max_new_tokens=4 + 7 * (index % 5), no_repeat_ngram_size=index % 4)
        cases.append((options, index, (0, *range(index % 6), 2)))
    futures = submit(scheduler, *(request(*case) for case in cases))
    for case, future in zip(cases, futures, strict=True):
        assert future.result(PATIENCE_S) == answer_alone(*case)
    assert max(model.step_rows) > 20  # they did run together


def test_rows_are_bounded_and_the_rest_wait_in_order(model: ScriptedModel) -> None:
    scheduler = Scheduler(model, max_rows=16)
    done: list[int] = []
    requests = [request(GenerationOptions(num_beams=5, max_new_tokens=9), number) for number in range(10)]
    for number, one in enumerate(requests):
        one.future.add_done_callback(lambda _, number=number: done.append(number))
    wait(submit(scheduler, *requests), PATIENCE_S)
    scheduler.close()
    assert max(model.step_rows) == 15
    assert sorted(done) == list(range(10))
    assert set(done[:3]) <= set(range(6))


def test_max_rows_has_room_for_the_widest_request(model: ScriptedModel) -> None:
    with pytest.raises(ValueError, match="at least 16"):
        Scheduler(model, max_rows=15)


def test_an_image_is_encoded_once_for_its_prompts(scheduler: Scheduler, model: ScriptedModel) -> None:
    shared = image(3)
    prompts = [(0, 9, 2), (0, 4, 4, 2), (0, 2)]
    futures = submit(scheduler, *(request(LONG, 3, prompt, shared) for prompt in prompts))
    assert [future.result(PATIENCE_S) for future in futures] == [answer_alone(LONG, 3, prompt) for prompt in prompts]
    assert model.image_batches == [1]
    assert shared.pixels is None


def test_images_of_a_pass_are_bounded(model: ScriptedModel) -> None:
    scheduler = Scheduler(model, images_per_pass=2)
    model.hold.clear()
    first = submit(scheduler, request(LONG))
    assert model.in_step.wait(PATIENCE_S)
    others = submit(scheduler, *(request(LONG, number) for number in range(2, 7)))
    model.hold.set()
    wait(first + others, PATIENCE_S)
    scheduler.close()
    assert model.image_batches == [1, 2, 2, 1]


def test_a_new_request_joins_those_that_run(scheduler: Scheduler, model: ScriptedModel) -> None:
    model.hold.clear()
    (first,) = submit(scheduler, request(LONG))
    assert model.in_step.wait(PATIENCE_S)
    (second,) = submit(scheduler, request(GenerationOptions(max_new_tokens=3), 2))
    model.hold.set()
    second.result(PATIENCE_S)
    first.result(PATIENCE_S)
    assert model.step_rows[:4] == [1, 2, 2, 2]
    assert model.step_rows[4] == 1


def test_cancelling_a_running_request_frees_its_rows(scheduler: Scheduler, model: ScriptedModel) -> None:
    model.hold.clear()
    stays, leaves = request(LONG), request(GenerationOptions(num_beams=4, max_new_tokens=40), 2)
    submit(scheduler, stays, leaves)
    while len(model.step_rows) < 2:  # let both run
        model.in_step.clear()
        model.hold.set()
        time.sleep(0.001)
    model.hold.clear()
    assert leaves.future.cancel()
    steps = len(model.step_rows)
    model.hold.set()
    assert stays.future.result(PATIENCE_S) == answer_alone(LONG)
    assert set(model.step_rows[steps + 2 :]) <= {1}
    with pytest.raises(CancelledError):
        leaves.future.result(0)
    assert not wait([leaves.future], PATIENCE_S).not_done


def test_cancelling_a_waiting_request_takes_it_out(scheduler: Scheduler, model: ScriptedModel) -> None:
    model.hold.clear()
    (first,) = submit(scheduler, request(LONG))
    assert model.in_step.wait(PATIENCE_S)
    (second,) = submit(scheduler, request(LONG, 2))
    assert second.cancel()
    model.hold.set()
    first.result(PATIENCE_S)
    assert not wait([second], PATIENCE_S).not_done
    assert model.image_batches == [1]


@pytest.mark.parametrize("call", ["decode_step", "admit"])
def test_a_failed_step_fails_its_requests_and_the_loop_goes_on(scheduler: Scheduler, model: ScriptedModel, call: str) -> None:
    model.failure[call] = RuntimeError("a kernel broke")
    futures = submit(scheduler, request(LONG, shared=(shared := image(1))), request(LONG, 1, (0, 7, 2), shared))
    for future in futures:
        error = future.exception(PATIENCE_S)
        assert isinstance(error, EngineFailed)
        assert isinstance(error.__cause__, RuntimeError)
        assert "a kernel broke" in error.message
    assert submit(scheduler, request(LONG))[0].result(PATIENCE_S) == answer_alone(LONG)


@pytest.mark.parametrize("call", ["encode_image", "encode_prompt"])
def test_a_failed_encoding_leaves_the_running_ones_alone(scheduler: Scheduler, model: ScriptedModel, call: str) -> None:
    model.hold.clear()
    (first,) = submit(scheduler, request(LONG))
    assert model.in_step.wait(PATIENCE_S)
    model.failure[call] = RuntimeError("broken")
    (second,) = submit(scheduler, request(LONG, 2))
    model.hold.set()
    assert first.result(PATIENCE_S) == answer_alone(LONG)
    assert isinstance(second.exception(PATIENCE_S), EngineFailed)


def test_logits_that_are_not_numbers_fail_their_request_alone(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    import tests.engine.fakes as fakes

    scripted = fakes.scripted_logits

    def broken(number: int, prompt, history):
        logits = scripted(number, prompt, history)
        return logits * float("nan") if number == 2 and len(history) > 3 else logits

    expected = answer_alone(LONG)
    monkeypatch.setattr(fakes, "scripted_logits", broken)
    sound, unsound = submit(scheduler, request(LONG), request(LONG, 2))
    assert "NaN" in str(unsound.exception(PATIENCE_S))
    assert sound.result(PATIENCE_S) == expected


def test_an_interpretation_that_raises_fails_its_request_alone(scheduler: Scheduler) -> None:
    bad, good = request(LONG), request(LONG)
    bad.interpret = lambda generated: 1 // 0
    first, second = submit(scheduler, bad, good)
    assert isinstance(first.exception(PATIENCE_S), EngineFailed)
    assert second.result(PATIENCE_S) == answer_alone(LONG)


def test_close_answers_what_is_there_and_refuses_what_comes(model: ScriptedModel) -> None:
    scheduler = Scheduler(model)
    futures = submit(scheduler, *(request(LONG, number) for number in range(5)))
    scheduler.close()
    assert all(future.done() and not future.cancelled() for future in futures)
    with pytest.raises(EngineClosed, match="closed"):
        scheduler.submit([request(LONG)])
    scheduler.close()
    scheduler.close(cancel=True)


def test_close_can_cancel(model: ScriptedModel) -> None:
    scheduler = Scheduler(model)
    model.hold.clear()
    futures = submit(scheduler, *(request(LONG, number) for number in range(5)))
    assert model.in_step.wait(PATIENCE_S)
    scheduler.close(cancel=True, wait=False)
    model.hold.set()
    assert not wait(futures, PATIENCE_S).not_done
    assert all(future.cancelled() for future in futures)


def test_close_from_a_callback_does_not_wait_for_itself(model: ScriptedModel) -> None:
    scheduler = Scheduler(model)
    one = request(LONG)
    one.future.add_done_callback(lambda _: scheduler.close())
    (future,) = submit(scheduler, one)
    assert future.result(PATIENCE_S) == answer_alone(LONG)
    scheduler.close()


EXITS = (SystemExit(3), KeyboardInterrupt(), GeneratorExit(), CancelledError(), BufferError())


@pytest.mark.parametrize("raised", EXITS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("call", ["encode_image", "encode_prompt", "admit", "decode_step", "interpret", "num_rows", "advance"])
def test_nothing_that_is_raised_leaves_anybody_waiting(
    scheduler: Scheduler, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch, call: str, raised: BaseException
) -> None:
    """Whatever its kind and wherever on a request's way: it fails those who take part, and the loop goes on."""

    def fail(*_: object) -> Any:
        raise raised

    asked = [request(LONG), request(GenerationOptions(num_beams=3, max_new_tokens=9), 2)]
    if call == "interpret":
        asked[0].interpret = asked[1].interpret = fail
    elif call == "num_rows":
        monkeypatch.setattr(asked[0], "search", Unreadable(raised))
    elif call == "advance":
        monkeypatch.setattr(asked[0].search, "advance", fail)
    else:
        model.failure[call] = raised
    futures = submit(scheduler, *asked)
    for future in futures:
        error = future.exception(PATIENCE_S)
        assert error is None or (isinstance(error, EngineFailed) and error.__cause__ is raised)
    assert any(future.exception() for future in futures)
    assert submit(scheduler, request(LONG))[0].result(PATIENCE_S) == answer_alone(LONG)


class Unreadable:
    """A search that can't even be asked how many rows it needs, the first time."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    @property
    def num_rows(self) -> int:
        raise self._error


@pytest.mark.parametrize("raised", EXITS, ids=lambda error: type(error).__name__)
def test_a_callback_that_raises_ends_nothing_but_itself(scheduler: Scheduler, model: ScriptedModel, raised: BaseException) -> None:
    """Other callbacks of the same future are called, and other requests of the same step answered."""

    def fail(_: Future) -> None:
        raise raised

    called: list[str] = []
    broken = request(LONG)
    broken.interpret = lambda _: 1 // 0
    asked = {"answered": request(LONG), "failed": broken, "cancelled": request(LONG, 3)}
    model.hold.clear()
    for name, one in asked.items():
        one.future.add_done_callback(fail)
        one.future.add_done_callback(lambda _, name=name: called.append(name))
    submit(scheduler, *asked.values(), other := request(LONG, 2))
    assert model.in_step.wait(PATIENCE_S)
    with contextlib.suppress(type(raised)):  # it is the caller's own thread that cancels, and hears of it
        asked["cancelled"].future.cancel()
    model.hold.set()
    assert other.future.result(PATIENCE_S) == answer_alone(LONG, 2)
    assert asked["answered"].future.result(PATIENCE_S) == answer_alone(LONG)
    assert isinstance(broken.future.exception(PATIENCE_S), EngineFailed)
    assert submit(scheduler, request(LONG))[0].result(PATIENCE_S) == answer_alone(LONG)
    assert set(called) >= {"answered", "failed"}


def test_an_outcome_of_the_callers_own_harms_nobody(scheduler: Scheduler, model: ScriptedModel) -> None:
    model.hold.clear()
    tampered, other = submit(scheduler, request(LONG), request(LONG, 2))
    assert model.in_step.wait(PATIENCE_S)
    tampered.set_result("mine")
    model.hold.set()
    assert other.result(PATIENCE_S) == answer_alone(LONG, 2)
    assert tampered.result(0) == "mine"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_loop_that_breaks_tells_everybody_and_closes(model: ScriptedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can't be mended, such as a cache that can't be cleared: who runs, who is joining and who waits hear of it."""
    scheduler = Scheduler(model)
    model.hold.clear()
    (running,) = submit(scheduler, request(LONG))
    assert model.in_step.wait(PATIENCE_S)
    monkeypatch.setattr(scheduler, "_wait_for_work", lambda: 1 // 0)
    (waiting,) = submit(scheduler, request(LONG, 2))
    model.hold.set()
    for future in (running, waiting):
        error = future.exception(PATIENCE_S)
        assert isinstance(error, EngineFailed)
        assert isinstance(error.__cause__, ZeroDivisionError)
    scheduler.close(timeout_s=PATIENCE_S)
    with pytest.raises(EngineClosed):
        scheduler.submit([])


@dataclass(frozen=True)
class Plan:
    """One request of a random run: what is asked, how it is cancelled, and what breaks when it is submitted."""

    num_beams: int
    max_new_tokens: int
    ngram: int
    number: int
    prompt: tuple[int, ...]
    pause_ms: int
    cancel_after_ms: int | None
    failure: str | None


plans = st.builds(
    Plan,
    num_beams=st.integers(1, 4),
    max_new_tokens=st.integers(1, 25),
    ngram=st.sampled_from([0, 2, 3]),
    number=st.integers(0, 5),
    prompt=st.lists(st.integers(3, 40), max_size=4).map(lambda ids: (0, *ids, 2)),
    pause_ms=st.sampled_from([0, 0, 0, 1, 3]),
    cancel_after_ms=st.sampled_from([None, None, 0, 1, 3]),
    failure=st.sampled_from([None] * 12 + ["decode_step", "encode_image", "admit"]),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(plans, min_size=1, max_size=14), st.integers(1, 3), st.sampled_from([None, False, True]))
def test_every_request_has_its_own_outcome_once(asked: list[Plan], num_threads: int, cancel_at_close: bool | None) -> None:
    model = ScriptedModel()
    scheduler = Scheduler(model, max_rows=16, images_per_pass=2)
    outcomes: list[tuple[Plan, Future, list[int]]] = []

    def caller(mine: list[Plan]) -> None:
        for plan in mine:
            time.sleep(plan.pause_ms / 1000)
            one = request(GenerationOptions(plan.num_beams, plan.max_new_tokens, plan.ngram), plan.number, plan.prompt)
            calls: list[int] = []
            one.future.add_done_callback(lambda _, calls=calls: calls.append(1))
            if plan.failure:
                model.failure[plan.failure] = RuntimeError("planned")
            scheduler.submit([one])
            if plan.cancel_after_ms is not None:
                time.sleep(plan.cancel_after_ms / 1000)
                one.future.cancel()
            outcomes.append((plan, one.future, calls))

    threads = [threading.Thread(target=caller, args=(asked[start::num_threads],)) for start in range(num_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    if cancel_at_close is not None:
        scheduler.close(cancel=cancel_at_close, timeout_s=PATIENCE_S)
    assert not wait([future for _, future, _ in outcomes], PATIENCE_S).not_done
    scheduler.close(timeout_s=PATIENCE_S)

    has_failures = any(plan.failure for plan in asked)
    for plan, future, calls in outcomes:
        assert len(calls) == 1
        if future.cancelled():
            assert plan.cancel_after_ms is not None or cancel_at_close
        elif future.exception() is not None:
            assert has_failures
            assert isinstance(future.exception(), EngineFailed)
        else:
            options = GenerationOptions(plan.num_beams, plan.max_new_tokens, plan.ngram)
            assert future.result() == answer_alone(options, plan.number, plan.prompt)


def test_a_closed_scheduler_is_forgotten(model: ScriptedModel) -> None:
    import weakref

    scheduler = Scheduler(model)
    submit(scheduler, request(LONG))[0].result(PATIENCE_S)
    scheduler.close()
    trace = weakref.ref(scheduler)
    del scheduler
    gc.collect()
    assert trace() is None


def test_accounts_take_turns(model: ScriptedModel) -> None:
    scheduler = Scheduler(model, max_rows=16)
    model.hold.clear()
    done: list[str] = []
    options = GenerationOptions(num_beams=8, max_new_tokens=6)
    greedy = [request(options, number) for number in range(8)]
    modest = [request(options, 20 + number) for number in range(2)]
    for name, requests in (("greedy", greedy), ("modest", modest)):
        for one in requests:
            one.fair_key = name
            one.future.add_done_callback(lambda _, name=name: done.append(name))
    submit(scheduler, *greedy)
    submit(scheduler, *modest)
    model.hold.set()
    wait([one.future for one in (*greedy, *modest)], PATIENCE_S)
    scheduler.close(timeout_s=PATIENCE_S)
    assert len(done) == 10
    assert "greedy" not in done[done.index("modest") :][:1]
    assert done.index("modest") <= 2  # behind what ran already, before all that waits
    assert max(index for index, name in enumerate(done) if name == "modest") <= 5
