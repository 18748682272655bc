"""An answer in tiles: one future, which settles once, cancels all that it is made of, and fails with the first that fails."""

from __future__ import annotations

from concurrent.futures import CancelledError, wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import florence2
from florence2.engine.engine import Engine
from florence2.engine.request import Request
from florence2.engine.scheduler import Scheduler
from florence2.engine.tiled import TiledAnswer
from florence2.errors import EngineClosed, EngineFailed, InvalidImage, InvalidOption
from florence2.request_options import GenerationOptions
from florence2.scenes.scene import draw_scene
from tests.engine.fakes import ScriptedModel, answer_alone, request

PATIENCE_S = 20.0
LONG = GenerationOptions(max_new_tokens=40)


def tiled(count: int = 3, merge: Any = tuple) -> tuple[TiledAnswer, list[Request]]:
    """The future of requests whose results are what was generated."""
    parts = [request(LONG, number) for number in range(count)]
    return TiledAnswer(parts, merge), parts


def test_the_parts_are_merged_in_their_order(scheduler: Scheduler, model: ScriptedModel) -> None:
    answer, parts = tiled()
    called: list[bool] = []
    answer.add_done_callback(lambda done: called.append(done is answer))
    scheduler.submit(parts[::-1])
    assert answer.result(PATIENCE_S) == tuple(answer_alone(LONG, number) for number in range(3))
    assert max(model.step_rows) == 3  # they shared their steps
    assert called == [True]
    assert not answer.cancel()


def test_cancelling_cancels_all_parts(scheduler: Scheduler, model: ScriptedModel) -> None:
    model.hold.clear()
    answer, parts = tiled()
    scheduler.submit(parts)
    assert answer.cancel()
    assert answer.cancel()
    assert all(part.is_cancelled for part in parts)
    assert wait([answer], PATIENCE_S).done == {answer}
    with pytest.raises(CancelledError):
        answer.result(0)
    model.hold.set()
    other, parts = tiled()
    scheduler.submit(parts)
    assert len(other.result(PATIENCE_S)) == 3  # type: ignore[arg-type]


def test_the_error_of_a_part_is_that_of_the_whole(scheduler: Scheduler, model: ScriptedModel) -> None:
    model.hold.clear()
    answer, parts = tiled()
    parts[1].interpret = lambda _: 1 / 0
    scheduler.submit(parts)
    model.hold.set()
    with pytest.raises(EngineFailed, match="ZeroDivisionError"):
        answer.result(PATIENCE_S)
    wait([part.future for part in parts], PATIENCE_S)
    assert answer.exception(0) is not None


def test_an_error_while_merging_is_an_answer(scheduler: Scheduler) -> None:
    answer, parts = tiled(merge=lambda results: results.nothing)
    scheduler.submit(parts)
    with pytest.raises(EngineFailed, match="AttributeError"):
        answer.result(PATIENCE_S)


def test_an_engine_that_closes_cancels_the_whole(scheduler: Scheduler, model: ScriptedModel) -> None:
    model.hold.clear()
    answer, parts = tiled()
    scheduler.submit(parts)
    scheduler.close(cancel=True, wait=False)
    model.hold.set()
    with pytest.raises(CancelledError):
        answer.result(PATIENCE_S)


def test_a_fork_fails_the_whole() -> None:
    answer, parts = tiled()
    for part in parts:
        part.future.leave_behind(EngineClosed("elsewhere"))
    with pytest.raises(EngineClosed, match="elsewhere"):
        answer.result(0)


def test_a_picture_of_one_tile_has_the_answer_it_has_without(engine: Engine, image: Image.Image) -> None:
    alone = engine.run(image, "<OCR>", max_new_tokens=6)
    assert engine.run(image, "<OCR>", max_new_tokens=6, tiles=640) == alone == engine.run(image, "<OCR>", max_new_tokens=6, tiles="1x1")


def test_several_prompts_share_each_tile(engine: Engine, image: Image.Image) -> None:
    large = image.resize((300, 200))
    results = engine.run_many(large, ["<OD>", "<OCR>", "<CAPTION_TO_PHRASE_GROUNDING>a"], max_new_tokens=6, tiles="2x2", scores=True)
    assert [result.task for result in results] == ["<OD>", "<OCR>", "<CAPTION_TO_PHRASE_GROUNDING>"]
    detected, read, _ = results
    assert detected.image_size == large.size
    assert detected.finish_reason == "length"
    assert detected.usage is not None
    assert detected.usage.num_answer_tokens == len(detected.token_ids) == 5 * 6
    assert len(detected.to_dict(coordinates="float")["<OD>"]["bboxes"]) == len(detected.objects)
    assert (read.kind, read.boxes, read.quads, read.scores) == ("text", [], [], None)
    assert detected.annotate().width == large.width


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("<CAPTION>", "tiles do not go with <CAPTION>: it describes the whole picture"),
        ("<REGION_TO_OCR><loc_1><loc_2><loc_3><loc_4>", "its region lies in one place"),
        ("<REGION_TO_SEGMENTATION><loc_1><loc_2><loc_3><loc_4>", "its region lies in one place"),
        ("<REFERRING_EXPRESSION_SEGMENTATION>a car", "outlines the one thing"),
        ("What is this?", "tiles do not go with a free prompt"),
    ],
)
def test_tasks_that_make_no_sense_in_parts_are_refused(engine: Engine, image: Image.Image, prompt: str, said: str) -> None:
    with pytest.raises(InvalidOption, match=said) as refused:
        engine.run_many(image, ["<OD>", prompt], tiles="2x2")
    assert refused.value.field == "tiles"


def test_tiles_are_not_streamed(engine: Engine, image: Image.Image) -> None:
    for ask in (lambda: engine.stream(image, "<OD>", tiles=640), lambda: engine.submit(image, "<OD>", on_event=print, tiles="2x2")):
        with pytest.raises(InvalidOption, match="can't be streamed") as refused:
            ask()
        assert refused.value.field == "tiles"


def test_wrong_tiles_queue_nothing(engine: Engine, image: Image.Image) -> None:
    with pytest.raises(InvalidOption, match="tiles must be"):
        engine.submit(image, "<OD>", tiles="a lot")
    with pytest.raises(InvalidImage, match="at most 64 are asked about"):
        engine.submit(image.resize((2000, 2000)), "<OD>", tiles=64)


@pytest.mark.slow
def test_the_demo_finds_in_tiles_what_is_too_small_for_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    mosaic = Image.new("RGB", (576, 576))
    true: list[tuple[str, tuple[float, ...]]] = []
    for place in range(9):
        scene, (left, top) = draw_scene(rng), (place % 3 * 192, place // 3 * 192)
        mosaic.paste(scene.image, (left, top))
        true += [(thing.label, tuple(np.add(thing.box, (left, top, left, top)))) for thing in scene.objects]
    mosaic.save(tmp_path / "mosaic.png")
    with florence2.load("florence-2-demo", device="cpu", precision="fp32") as demo:
        alone = demo.run(tmp_path / "mosaic.png", "<OD>", num_beams=1)
        closer = demo.run(tmp_path / "mosaic.png", "<OD>", num_beams=1, tiles="3x3", scores=True)
    assert num_found(alone, true) < 0.3 * len(true)
    assert num_found(closer, true) > 0.8 * len(true)
    assert num_found(closer, true) > 0.5 * len(closer.objects)
    assert closer.scores is not None
    assert len(closer.scores) == len(closer.labels)


def num_found(result: florence2.Result, true: list[tuple[str, tuple[float, ...]]]) -> int:
    """How many objects have a box of their label within a few pixels."""
    return sum(
        any(found.label == label and np.abs(np.subtract(found.box, box)).max() <= 6 for found in result.objects) for label, box in true
    )
