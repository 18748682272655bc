"""The window of requests in flight: each item exactly once and in order, whatever finishes when; what is left over is cancelled."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from florence2.in_flight import in_flight, read_ahead


class Broken(Exception):
    """What a reading, a submission or an answer fails with."""


def read(*items: int) -> Iterator[Future[int]]:
    """Items that are read already."""
    for item in items:
        yield done(item)


def done(value: int) -> Future[int]:
    future: Future[int] = Future()
    future.set_result(value)
    return future


class Engine:
    """Takes items, and answers when it is told to."""

    def __init__(self) -> None:
        self.futures: dict[int, list[Future[str]]] = {}

    def submit(self, item: int, num_questions: int = 1) -> list[Future[str]]:
        self.futures[item] = [Future() for _ in range(num_questions)]
        return self.futures[item]

    def answer(self, item: int) -> None:
        for future in self.futures[item]:
            future.set_result(f"about {item}")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_each_item_comes_once_and_in_order_whatever_finishes_when(data: st.DataObject) -> None:
    delays = data.draw(st.lists(st.tuples(*[st.sampled_from([0.0, 0.001, 0.003])] * 2, st.integers(0, 3)), max_size=12), label="delays")
    num_ahead, num_items = data.draw(st.integers(0, 4), label="ahead"), data.draw(st.integers(1, 4), label="in flight")
    num_threads = data.draw(st.integers(1, 4), label="threads")
    submitted: list[int] = []
    most = 0

    def picture(index: int) -> int:
        time.sleep(delays[index][0])
        return index

    def answer(index: int, question: int) -> tuple[int, int]:
        time.sleep(delays[index][1])
        return index, question

    with ThreadPoolExecutor(num_threads) as pool:

        def submit(index: int) -> list[Future[tuple[int, int]]]:
            submitted.append(index)
            return [pool.submit(answer, index, question) for question in range(delays[index][2])]

        found = []
        for index, futures in in_flight(read_ahead(range(len(delays)), picture, num_ahead=num_ahead), submit, num_items=num_items):
            assert all(future.done() for future in futures)
            most = max(most, len(submitted) - len(found))
            found.append((index, [future.result() for future in futures]))
    assert submitted == list(range(len(delays)))
    assert found == [(index, [(index, question) for question in range(num)]) for index, (*_, num) in enumerate(delays)]
    assert most <= num_items


def test_no_more_items_than_asked_for_are_in_flight() -> None:
    engine = Engine()
    answered = in_flight(read(*range(9)), engine.submit, num_items=3)
    threading.Timer(0.02, lambda: engine.answer(0)).start()
    assert next(answered)[0] == 0
    assert list(engine.futures) == [0, 1, 2]
    engine.answer(1)
    assert next(answered)[0] == 1
    assert list(engine.futures) == [0, 1, 2, 3]
    answered.close()


def test_an_item_that_is_not_read_yet_delays_none_before_it() -> None:
    engine = Engine()
    late: Future[int] = Future()
    answered = in_flight(iter([done(0), late]), engine.submit)
    threading.Timer(0.02, lambda: engine.answer(0)).start()
    assert next(answered)[0] == 0
    assert not late.done()
    late.set_result(1)
    threading.Timer(0.02, lambda: engine.answer(1)).start()
    assert [item for item, _ in answered] == [1]


def test_an_item_without_questions_comes_in_its_turn() -> None:
    engine = Engine()
    answered = in_flight(read(0, 1, 2), lambda item: engine.submit(item, num_questions=2 if item == 0 else 0))
    threading.Timer(0.02, lambda: engine.answer(0)).start()
    assert [(item, len(futures)) for item, futures in answered] == [(0, 2), (1, 0), (2, 0)]


def test_an_answer_that_failed_is_the_callers_to_look_at_and_ends_nothing() -> None:
    def submit(item: int) -> list[Future[int]]:
        future = done(item)
        if item == 1:
            future = Future()
            future.set_exception(Broken())
        return [future]

    found = list(in_flight(read(0, 1, 2), submit))
    assert [item for item, _ in found] == [0, 1, 2]
    assert [isinstance(future.exception(), Broken) for _, (future,) in found] == [False, True, False]


def test_closing_cancels_all_that_is_in_flight() -> None:
    engine = Engine()
    answered = in_flight(read(*range(9)), lambda item: engine.submit(item, num_questions=2), num_items=4)
    threading.Timer(0.02, lambda: engine.answer(0)).start()
    next(answered)
    answered.close()
    assert [[future.cancelled() for future in engine.futures[item]] for item in range(4)] == [[False] * 2, *([[True] * 2] * 3)]


@pytest.mark.parametrize("where", ["reading", "submit", "iterator"])
def test_an_error_in_the_middle_is_raised_and_cancels_all_that_is_in_flight(where: str) -> None:
    engine = Engine()

    def readings() -> Iterator[Future[int]]:
        yield from read(0, 1)
        broken = done(2)
        if where == "reading":
            broken = Future()
            broken.set_exception(Broken())
        if where == "iterator":
            raise Broken
        yield broken

    def submit(item: int) -> list[Future[str]]:
        if item == 2:
            raise Broken
        return engine.submit(item)

    with pytest.raises(Broken):
        next(in_flight(readings(), submit))
    assert [future.cancelled() for (future,) in engine.futures.values()] == [True, True]


def test_an_interrupted_wait_cancels_all_that_is_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine()

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("florence2.in_flight.wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(in_flight(read(0, 1), engine.submit))
    assert [future.cancelled() for (future,) in engine.futures.values()] == [True, True]
    with pytest.raises(CancelledError):
        engine.futures[0][0].result()


def test_some_items_are_read_ahead_and_an_error_of_one_is_that_of_its_future() -> None:
    started: list[int] = []

    def load(item: int) -> int:
        started.append(item)
        if item == 1:
            raise Broken
        return -item

    readings = read_ahead(range(9), load, num_ahead=2)
    first = next(readings)
    assert first.result() == 0
    broken = next(readings)
    assert isinstance(broken.exception(), Broken)
    assert [reading.result() for reading in readings] == [-2, -3, -4, -5, -6, -7, -8]
    assert sorted(started) == list(range(9))


def test_no_item_is_read_before_there_is_room_for_it() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(9):
            taken.append(item)
            yield item

    readings = read_ahead(items(), lambda item: item, num_ahead=2)
    next(readings)
    assert taken == [0, 1, 2]
    next(readings)
    assert taken == [0, 1, 2, 3]
