"""Recorded steps give what steps as they come give. On a CPU, by a backend that runs the recorded work again: places, sizes and
padding are the same as with CUDA graphs. Where there is a GPU, by CUDA graphs as well."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fixtures.checkpoints import write_checkpoint
from florence2.engine.cuda_graphs import LENGTHS, CudaGraphs, GraphedModel, Recorder, Work, rounded
from florence2.engine.engine import Engine
from florence2.engine.next_tokens import RankedLogits
from florence2.model import Florence2
from florence2.model.cache import StepSize
from florence2.tasks.tokenizer import Tokenizer
from florence2.weights import load_model, read_checkpoint


class Again:
    """Plays by running the work again, into the tensor of the first time, as a graph does."""

    def __init__(self) -> None:
        self.recordings = 0
        self.failure: RuntimeError | None = None

    def record(self, work: Work) -> Work:
        if self.failure:
            raise self.failure
        self.recordings += 1
        outputs = tuple(output.clone() for output in work())
        return lambda: tuple(output.copy_(made) for output, made in zip(outputs, work(), strict=True))


class Counted:
    """Counts what another backend records."""

    def __init__(self, recorder: Recorder) -> None:
        self.recordings = 0
        self._recorder = recorder

    def record(self, work: Work) -> Work:
        self.recordings += 1
        return self._recorder.record(work)


def recorder_for(model: Florence2) -> Again | Counted:
    return Again() if model.device.type == "cpu" else Counted(CudaGraphs(model.device))


GPU = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU"))


@pytest.fixture(scope="module", params=["cpu", GPU])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Florence2:
    return load_model(read_checkpoint(write_checkpoint(tmp_path_factory.mktemp("checkpoint"), size="tiny")), device=request.param)


def encoded(model: Florence2, prompts: list[list[int]], seed: int = 0):
    longest = max(len(prompt) for prompt in prompts)
    padded = torch.tensor([prompt + [1] * (longest - len(prompt)) for prompt in prompts], device=model.device)
    images = torch.randn(len(prompts), 3, 64, 64, generator=torch.Generator().manual_seed(seed)).to(model.device)
    return model.encode_prompt(model.encode_image(images), padded, [len(prompt) for prompt in prompts])


def logits_of(given: Tensor | RankedLogits) -> Tensor:
    return given.logits if isinstance(given, RankedLogits) else given


@torch.inference_mode()
def test_steps_of_requests_that_come_and_go_are_equal(model: Florence2) -> None:
    recorder = recorder_for(model)
    recorded = GraphedModel(model, recorder)
    caches = {"plain": model.new_cache(16), "recorded": recorded.new_cache(16)}
    runners = {"plain": model, "recorded": recorded}
    generator = torch.Generator().manual_seed(3)

    def each(action: Callable) -> None:
        for name, cache in caches.items():
            action(runners[name], cache)

    def step() -> None:
        tokens = torch.randint(3, 290, (caches["plain"].num_rows,), generator=generator).to(model.device)
        logits = [logits_of(runners[name].decode_step(tokens, cache)).clone() for name, cache in caches.items()]
        torch.testing.assert_close(logits[1], logits[0], atol=1e-4, rtol=1e-4)

    first, second, third = encoded(model, [[0, 5, 6, 2]]), encoded(model, [[0, 7, 2], [0, 8, 9, 10, 11, 2]], 1), encoded(model, [[0, 2]], 2)
    each(lambda runner, cache: runner.admit(cache, first, [3]))
    for _ in range(3):
        step()
        each(lambda _, cache: cache.reorder([0, 0, 1]))
    each(lambda runner, cache: runner.admit(cache, second, [1, 5]))
    step()
    each(lambda _, cache: cache.reorder([2, 1, 0, 3, 8, 7, 6, 5, 4]))
    step()
    each(lambda _, cache: cache.keep([1, 2]))
    step()
    each(lambda runner, cache: runner.admit(cache, third, [1]))
    for _ in range(LENGTHS[0] + 2):  # on into the next length
        step()
    each(lambda _, cache: cache.keep([]))
    each(lambda runner, cache: runner.admit(cache, third, [1]))
    before = recorder.recordings
    step()
    assert recorder.recordings == before + 1
    step()
    assert recorder.recordings == before + 1  # played, not recorded again


@torch.inference_mode()
@pytest.mark.parametrize("count", [1, 3, 8, 9])
def test_images_are_equal_whatever_their_number(model: Florence2, count: int) -> None:
    recorder = recorder_for(model)
    recorded = GraphedModel(model, recorder)
    pixels = torch.randn(2, count, 3, 64, 64, device=model.device)
    first, second = (recorded.encode_image(part) for part in pixels)
    torch.testing.assert_close(first, model.encode_image(pixels[0]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(second, model.encode_image(pixels[1]), atol=1e-5, rtol=1e-5)
    assert recorder.recordings == (1 if count <= 8 else 0)


@torch.inference_mode()
def test_a_backend_that_fails_is_given_up_with_a_line_in_the_log(model: Florence2, caplog: pytest.LogCaptureFixture) -> None:
    recorder = Again()
    recorder.failure = RuntimeError("operation not permitted when stream is capturing")
    recorded = GraphedModel(model, recorder)
    cache, plain = recorded.new_cache(4), model.new_cache(4)
    prompt = encoded(model, [[0, 5, 2]])
    for one in (cache, plain):
        model.admit(one, prompt, [2])
    with caplog.at_level("WARNING", logger="florence2"):
        for tokens in torch.tensor([[2, 2], [4, 5]], device=model.device):
            torch.testing.assert_close(
                logits_of(recorded.decode_step(tokens, cache)), model.decode_step(tokens, plain), atol=1e-5, rtol=1e-5
            )
    assert caplog.text.count("run as they come") == 1


def test_sizes_are_few_and_hold_what_is_needed(model: Florence2) -> None:
    cache = model.new_cache(48)
    sizes = set()
    for rows in range(1, 49):
        for beams in (1, 3):
            requests = -(-rows // beams)
            for length in (1, 40, 150):
                size = rounded(StepSize(rows, requests, beams, length, 70), cache)
                assert size is not None
                assert size.rows >= rows
                assert size.requests >= requests
                assert size.length >= length
                assert size.source >= 70
                assert size.rows <= size.requests * size.beams
                assert size.rows <= cache.max_rows
                assert max(size.length, size.source) <= cache.max_positions
                sizes.add(size)
    assert len(sizes) <= 64
    assert rounded(StepSize(64, 64, 1, 4, 70), cache) is None


def test_what_is_to_come_is_recorded_with_the_cache(model: Florence2) -> None:
    recorder = recorder_for(model)
    recorded = GraphedModel(model, recorder, image_size=(64, 64), num_beams=(1, 3, 1))
    cache = recorded.new_cache(16)
    assert recorder.recordings == 3
    with torch.inference_mode():
        recorded.encode_image(torch.randn(1, 3, 64, 64, device=model.device))
        recorded.admit(cache, encoded(model, [[0, 5, 2]]), [3])
        recorded.decode_step(torch.tensor([2, 2, 2], device=model.device), cache)
    assert recorder.recordings == 3


@pytest.mark.parametrize("device", ["cpu", GPU])
def test_a_whole_engine_on_recordings_gives_the_same_answers(tmp_path: Path, device: str) -> None:
    folder = write_checkpoint(tmp_path, size="tiny")
    checkpoint = read_checkpoint(folder)
    tokenizer = Tokenizer.load(folder)
    answers = []
    loaded = load_model(checkpoint, device=device)
    for model in (load_model(checkpoint), GraphedModel(loaded, recorder_for(loaded))):
        with Engine(checkpoint, model, tokenizer) as engine:
            images = [np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8) for seed in range(4)]
            futures = [
                engine.submit(image, prompt, num_beams=beams, max_new_tokens=20)
                for image in images
                for prompt, beams in (("<OD>", 3), ("<CAPTION>", 1), ("<OCR>", 2))
            ]
            answers.append([future.result(60).token_ids for future in futures])
    assert answers[0] == answers[1]
