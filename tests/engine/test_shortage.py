"""Memory that runs out in a pass: half as many go on, the others come later or are told to; nobody else notices."""

from __future__ import annotations

from concurrent.futures import wait

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from florence2.engine.scheduler import Scheduler
from florence2.engine.shortage import is_shortage
from florence2.errors import OutOfMemory
from florence2.model.cache import DecoderCache
from florence2.request_options import GenerationOptions
from tests.engine.fakes import ScriptedModel, answer_alone, request

PATIENCE_S = 20.0
LONG = GenerationOptions(max_new_tokens=30)


class SmallModel(ScriptedModel):
    """Has memory for so many images of a pass, and for so many rows of a step; one that runs out leaves half of its work behind."""

    def __init__(self, most_images: int = 1000, most_rows: int = 1000) -> None:
        super().__init__()
        self.most_images, self.most_rows = most_images, most_rows
        self.num_shortages = 0

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        self._check(len(pixel_values), self.most_images)
        return super().encode_image(pixel_values)

    def decode_step(self, token_ids: Tensor, cache: DecoderCache) -> Tensor:
        logits = super().decode_step(token_ids, cache)  # the cache has counted the step
        self._check(len(token_ids), self.most_rows)
        return logits

    def _check(self, number: int, most: int) -> None:
        if number > most:
            self.num_shortages += 1
            raise torch.OutOfMemoryError("CUDA out of memory")


def outcomes(scheduler: Scheduler, count: int) -> list:
    """What comes of so many requests: whether each answer is right, or its error."""
    requests = [request(LONG, number) for number in range(count)]
    scheduler.submit(requests)
    assert not wait([one.future for one in requests], PATIENCE_S).not_done
    return [one.future.exception() or one.future.result() == answer_alone(LONG, number) for number, one in enumerate(requests)]


@pytest.mark.parametrize("model", [SmallModel(most_images=3), SmallModel(most_rows=4)], ids=["images", "rows"])
def test_half_as_many_go_on_and_the_others_come_later(model: SmallModel) -> None:
    given_back: list[bool] = []
    scheduler = Scheduler(model, images_per_pass=8, give_back=lambda: given_back.append(True))
    model.hold.clear()
    blocker = request(GenerationOptions(max_new_tokens=2), 50)
    scheduler.submit([blocker])
    assert model.in_step.wait(PATIENCE_S)  # so that the others enter together
    requests = [request(LONG, number) for number in range(6)]
    scheduler.submit(requests)
    model.hold.set()
    results = [one.future.exception(PATIENCE_S) or one.future.result() for one in requests]
    scheduler.close()
    assert results == [answer_alone(LONG, number) for number in range(6)]
    assert len(given_back) == model.num_shortages > 0


def test_what_fails_again_is_told_and_the_next_is_answered() -> None:
    model = SmallModel(most_rows=1)
    scheduler = Scheduler(model, images_per_pass=8)
    model.hold.clear()
    requests = [request(GenerationOptions(num_beams=2, max_new_tokens=9), number) for number in range(4)]
    scheduler.submit(requests)
    model.hold.set()
    for one in requests:
        error = one.future.exception(PATIENCE_S)
        assert isinstance(error, OutOfMemory)
        assert error.status == 503
        assert isinstance(error.__cause__, torch.OutOfMemoryError)
    assert outcomes(scheduler, 1) == [True]
    scheduler.close()


def test_those_who_run_notice_nothing_of_a_shortage_of_newcomers() -> None:
    model = SmallModel(most_images=0)
    scheduler = Scheduler(model)
    model.most_images = 1
    model.hold.clear()
    running = request(LONG, 1)
    scheduler.submit([running])
    assert model.in_step.wait(PATIENCE_S)
    model.most_images = 0
    newcomer = request(LONG, 2)
    scheduler.submit([newcomer])
    model.hold.set()
    assert isinstance(newcomer.future.exception(PATIENCE_S), OutOfMemory)
    assert running.future.result(PATIENCE_S) == answer_alone(LONG, 1)
    scheduler.close()


def test_an_admission_that_breaks_off_is_taken_back(scheduler: Scheduler, model: ScriptedModel) -> None:
    model.failure["admit"] = MemoryError()  # raised after the cache has taken the request
    assert outcomes(scheduler, 1) == [True]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(most_images=st.integers(1, 4), most_rows=st.integers(1, 8), count=st.integers(1, 9), images=st.integers(1, 4))
def test_every_request_has_its_own_answer_or_the_error(most_images: int, most_rows: int, count: int, images: int) -> None:
    model = SmallModel(most_images, most_rows)
    scheduler = Scheduler(model, images_per_pass=images)
    for outcome in outcomes(scheduler, count):
        assert outcome is True or isinstance(outcome, OutOfMemory)
    model.most_images = model.most_rows = 1000
    assert outcomes(scheduler, 3) == [True] * 3
    scheduler.close()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_a_lack_of_memory(error: BaseException, expected: bool) -> None:
    assert is_shortage(error) is expected


def test_the_real_allocator_s_error_is_known() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_shortage(raised.value)
