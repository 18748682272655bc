"""What the server relies on, of the engine and of its stand-in in tests: one contract, held by both."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import florence2
from fixtures.checkpoints import write_checkpoint
from fixtures.fake_engine import FakeEngine
from florence2.errors import (
    EngineClosed,
    Florence2Error,
    InvalidImage,
    InvalidOption,
    InvalidPrompt,
    InvalidRegion,
    PromptTooLong,
    UnknownTask,
)
from florence2.tasks import parse_prompt

IMAGE = Image.new("RGB", (70, 50), "red")
LONG_S = 60
LONG = "word " * 400


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), generation={"num_beams": 1, "max_new_tokens": 8})


@pytest.fixture(params=["engine", "stand-in"])
def engine(request: pytest.FixtureRequest, folder: Path) -> Iterator[Any]:
    if request.param == "stand-in":
        yield FakeEngine()
    else:
        with florence2.load(folder, device="cpu", precision="fp32") as engine:
            yield engine


@pytest.mark.parametrize(
    ("prompt", "options", "error", "field"),
    [
        ("<ODD>", {}, UnknownTask, "prompt"),
        ("<OD><CAPTION>", {}, InvalidPrompt, "prompt"),
        ("<OD>", {"text": "a"}, InvalidPrompt, "text"),
        ("<CAPTION_TO_PHRASE_GROUNDING>", {}, InvalidPrompt, "text"),
        ("<REGION_TO_OCR>", {"region": (0, 0, 71, 10)}, InvalidRegion, "region"),
        ("<REGION_TO_OCR>", {"region": (5, 0, 1, 10)}, InvalidRegion, "region"),
        (LONG, {}, PromptTooLong, "prompt"),
        ("<OPEN_VOCABULARY_DETECTION>" + LONG, {}, PromptTooLong, "text"),
        ("<OD>", {"num_beams": 99}, InvalidOption, "num_beams"),
        ("<OD>", {"max_new_tokens": 0}, InvalidOption, "max_new_tokens"),
        ("<OD>", {"max_new_tokens": 5000}, InvalidOption, "max_new_tokens"),
        ("<OD>", {"temperature": 1.0}, InvalidOption, "temperature"),
        ("<OD>", {"scores": 1}, InvalidOption, "scores"),
        (parse_prompt("<OPEN_VOCABULARY_DETECTION>a"), {"text": "b"}, InvalidPrompt, "text"),
    ],
)
def test_mistakes_have_one_class(engine: Any, prompt: Any, options: dict[str, Any], error: type[Florence2Error], field: str) -> None:
    with pytest.raises(error) as caught:
        engine.submit(IMAGE, prompt, **options)
    assert type(caught.value) is error
    assert caught.value.field == field


def test_an_image_that_is_none_is_refused(engine: Any) -> None:
    with pytest.raises(InvalidImage):
        engine.submit(b"no image", "<OD>")


def test_prompts_are_prepared_before_the_image(engine: Any) -> None:
    for prompt in ("<OD>", parse_prompt("<REGION_TO_OCR>", region=(0, 0, 60, 50))):
        assert engine.submit(IMAGE, engine.prepare(prompt)).result(LONG_S).image_size == IMAGE.size
    with pytest.raises(PromptTooLong):
        engine.prepare(parse_prompt(LONG))
    with pytest.raises(InvalidRegion):
        engine.submit(IMAGE.resize((50, 50)), engine.prepare(parse_prompt("<REGION_TO_OCR>", region=(0, 0, 60, 50))))


def test_several_prompts_are_answered_in_their_order(engine: Any) -> None:
    prompts = ["<OD>", "a > b", parse_prompt("<CAPTION>"), engine.prepare(parse_prompt("<REGION_TO_OCR>", region=(0, 0, 9, 9)))]
    results = [future.result(LONG_S) for future in engine.submit_many(IMAGE, prompts, scores=True, fair_key="a", keep_image=False)]
    assert [result.task for result in results] == ["<OD>", "a >", "<CAPTION>", "<REGION_TO_OCR>"]
    assert [result.scores is None for result in results] == [False, True, True, True]
    assert engine.submit_many(IMAGE, []) == []
    with pytest.raises(InvalidPrompt, match="list of strings"):
        engine.submit_many(IMAGE, "<OD>")


def test_a_wrong_prompt_among_several_queues_none(engine: Any) -> None:
    with pytest.raises(UnknownTask):
        engine.submit_many(IMAGE, ["<OD>", "<ODD>"])
    if isinstance(engine, FakeEngine):
        assert engine.asked == []


def test_a_cancelled_future_stays_cancelled(engine: Any) -> None:
    if isinstance(engine, FakeEngine):
        engine.hold = True
    futures = [engine.submit(IMAGE, "<CAPTION>", max_new_tokens=100) for _ in range(30)]
    assert futures[-1].cancel()
    if isinstance(engine, FakeEngine):
        engine.release()
    with pytest.raises(CancelledError):
        futures[-1].result(LONG_S)
    assert futures[0].result(LONG_S).task == "<CAPTION>"


def test_a_closed_engine_answers_or_cancels_and_refuses(engine: Any) -> None:
    if isinstance(engine, FakeEngine):
        engine.hold = True
    futures = [engine.submit(IMAGE, "<CAPTION>", max_new_tokens=100) for _ in range(30)]
    engine.close(cancel=True)
    assert all(future.done() for future in futures)
    assert futures[-1].cancelled()
    for call in (lambda: engine.submit(IMAGE, "<OD>"), lambda: engine.submit_many(IMAGE, ["<OD>"])):
        with pytest.raises(EngineClosed):
            call()
