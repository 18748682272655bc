"""Where the time of answers went: stages fit into the whole, and what requests cost adds up to what the engine has worked."""

from __future__ import annotations

import pickle
import time
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from florence2.engine.engine import Engine
from florence2.engine.memory import stored_bytes
from florence2.engine.prepared import prepare
from florence2.engine.preprocess import Normaliser, _levels, looked_up, normalise
from florence2.engine.scheduler import Scheduler
from florence2.errors import InvalidImage
from florence2.images.resized import ResizedPicture, resized
from florence2.model.cache import DecoderCache
from florence2.request_options import GenerationOptions
from florence2.results import Result, Timing
from florence2.tiling.tiles import as_tiles
from florence2.timing import of_parts
from florence2.weights import load_model
from tests.engine.fakes import ScriptedModel, image, request

PATIENCE_S = 20.0
TILES = [(0, 0, 70, 50), (0, 0, 40, 50), (30, 0, 70, 50)]


class SlowModel(ScriptedModel):
    """Takes ten milliseconds a pass of the tower, five a step."""

    def encode_image(self, pixel_values: Tensor) -> Tensor:
        time.sleep(0.01)
        return super().encode_image(pixel_values)

    def decode_step(self, token_ids: Tensor, cache: DecoderCache) -> Tensor:
        time.sleep(0.005)
        return super().decode_step(token_ids, cache)


def timed(number: int, num_beams: int = 1, shared=None):
    """A request whose answer is a result, so that it has a timing."""
    one = request(GenerationOptions(num_beams=num_beams, max_new_tokens=4 + number), number, shared=shared)
    one.interpret = lambda generated: Result("<OD>", "text", (1, 1), "", "", token_ids=generated.token_ids)
    return one


def test_costs_add_up_to_the_time_of_the_engine() -> None:
    scheduler = Scheduler(SlowModel(), images_per_pass=2)
    both = image(3)
    requests = [timed(1), timed(2, 3), timed(3, shared=both), timed(4, shared=both), timed(5, 2)]
    scheduler.submit(requests)
    timings = [one.future.result(PATIENCE_S).timing for one in requests]
    scheduler.close()
    stats = scheduler.stats()
    assert sum(timing.compute_s for timing in timings) == pytest.approx(stats.busy_s, rel=0.1)
    assert stats.num_steps >= 9
    for timing in timings:
        assert all(seconds >= 0 for seconds in astuple(timing))
        stages = timing.queue_s + timing.vision_s + timing.prefill_s + timing.decode_s + timing.parse_s
        assert stages <= timing.total_s + 1e-6
        assert timing.queue_s < timing.first_token_s <= timing.total_s
        assert timing.vision_s >= 0.004
    assert timings[1].compute_s > timings[0].compute_s  # they entered together; this one has three beams, and more tokens


def test_an_image_that_is_known_costs_no_pass(engine: Engine, image: Image.Image) -> None:
    fresh = Image.fromarray(np.random.default_rng(1).integers(0, 256, (50, 70, 3), dtype=np.uint8))
    before = engine.stats()
    first, second = engine.run(fresh, "<OD>").timing, engine.run(fresh, "<CAPTION>").timing
    after = engine.stats()
    assert first is not None
    assert second is not None
    assert first.vision_s > 0.0 == second.vision_s
    assert after.image_cache_hits - before.image_cache_hits == after.image_cache_misses - before.image_cache_misses == 1
    assert after.busy_s > before.busy_s
    assert (after.num_waiting, after.waiting_bytes) == (0, 0)


def test_timing_travels_and_is_not_part_of_the_value(engine: Engine, image: Image.Image) -> None:
    result = engine.run(image, "<OD>")
    again = pickle.loads(pickle.dumps(result))
    assert isinstance(result.timing, Timing)
    assert again.timing == result.timing
    assert engine.run(image, "<OD>") == result
    assert "timing" not in str(result.to_dict())


def test_tiles_cost_what_all_of_them_cost(engine: Engine, image: Image.Image) -> None:
    picture = Image.new("RGB", (300, 200), "white")
    timing = engine.run(picture, "<OD>", tiles="2x1", max_new_tokens=20).timing
    assert timing is not None
    assert timing.compute_s > 0
    parts = [Timing(total_s=2.0, decode_s=1.0, compute_s=0.25), Timing(total_s=3.0, decode_s=2.0, compute_s=0.5)]
    assert of_parts(parts) == Timing(total_s=3.0, decode_s=2.0, compute_s=0.75)


def test_waiting_requests_hold_a_byte_a_value(scheduler: Scheduler, model: ScriptedModel) -> None:
    model.hold.clear()
    scheduler.submit([timed(1)])
    assert model.in_step.wait(PATIENCE_S)
    shared = image(2)
    shared.pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    scheduler.submit([timed(2, shared=shared), timed(3, shared=shared)])
    stats = scheduler.stats()
    assert (stats.num_running, stats.num_rows, stats.num_waiting, stats.waiting_bytes) == (1, 1, 2, 48)
    assert stats.pass_age_s > 0
    shared.pixels = image(2).pixels
    model.hold.set()


def test_pixels_become_the_same_input_in_the_pass(engine: Engine) -> None:
    settings = engine.checkpoint.image
    pictures = [np.random.default_rng(seed).integers(0, 256, (settings.height, settings.width, 3), dtype=np.uint8) for seed in range(3)]
    together = Normaliser(settings, engine.device)(pictures)
    for alone, pixels in zip(together, pictures, strict=True):
        assert np.array_equal(alone.numpy(), normalise(pixels, settings).numpy())
    levels = torch.from_numpy(_levels(settings.rescale_factor, settings.mean, settings.std))
    assert torch.equal(looked_up(torch.from_numpy(np.stack(pictures)), levels), together)  # as on a GPU


def test_a_resized_picture_is_answered_as_the_picture_is(engine: Engine, image: Image.Image) -> None:
    small = resized(image, engine.checkpoint.image, TILES)
    prompts = ["<OD>", "<CAPTION>"]
    results = [future.result(PATIENCE_S) for future in engine.submit_many(small, prompts)]
    assert results == engine.run_many(image, prompts)
    assert results[0].source is None
    with pytest.raises(InvalidImage, match="uint8 of shape"):
        engine.submit_many(ResizedPicture(small.pixels[:-1], small.size), prompts)


def test_tiles_of_a_resized_picture_are_answered_as_those_of_the_picture(engine: Engine) -> None:
    picture = Image.fromarray(np.random.default_rng(2).integers(0, 256, (200, 300, 3), dtype=np.uint8))
    boxes = as_tiles("2x1").boxes(picture.size)
    small = resized(picture, engine.checkpoint.image, boxes)
    (future,) = engine.submit_many(small, ["<OD>"], tiles="2x1", max_new_tokens=20)
    result, expected = future.result(PATIENCE_S), engine.run(picture, "<OD>", tiles="2x1", max_new_tokens=20)
    assert (result.token_ids, result.objects) == (expected.token_ids, expected.objects)


def test_memory_is_counted_once_a_storage() -> None:
    first, second = nn.Linear(10, 10, bias=False), nn.Linear(10, 10)
    second.weight = first.weight
    second.register_buffer("table", torch.zeros(7))
    second.plain = torch.zeros(100)[:2]  # holds on to all of it
    assert stored_bytes([first, second]) == 4 * (100 + 10 + 7 + 100)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_packed_weights_count(folder: Path, precision: str) -> None:
    ready = prepare(folder, "cpu", precision, ())
    num_weights = sum(value.numel() for value in load_model(ready.checkpoint).state_dict().values())
    assert (1.0 if precision == "int8" else 4.0) < ready.weight_bytes / num_weights < 8.0
