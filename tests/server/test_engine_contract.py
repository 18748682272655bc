"""What the server relies on, of the engine and of its stand-in in tests: one contract, held by both."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import florence2
from fixtures.adapters import write_adapter
from fixtures.checkpoints import checkpoint_config, write_checkpoint
from fixtures.fake_engine import FakeEngine
from florence2.answer_events import ObjectFound, TokensDecided
from florence2.engine_process.messages import LoadOptions
from florence2.engine_process.remote_engine import RemoteEngine
from florence2.engine_process.supervisor import EngineProcess
from florence2.errors import (
    EngineClosed,
    EngineFailed,
    Florence2Error,
    InvalidImage,
    InvalidOption,
    InvalidPrompt,
    InvalidRegion,
    PromptTooLong,
    UnknownTask,
)
from florence2.tasks import parse_prompt
from florence2.tasks.tokenized_prompt import TokenizedPrompt

IMAGE = Image.new("RGB", (70, 50), "red")
LONG_S = 60
LONG = "word " * 400


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"), generation={"num_beams": 1, "max_new_tokens": 8})


class Submitting:
    """An engine in another process, which takes one prompt as well, as the others do."""

    def __init__(self, engine: RemoteEngine) -> None:
        self.submit_many, self.prepare, self.token_bytes, self.close = engine.submit_many, engine.prepare, engine.token_bytes, engine.close
        self.add_adapter, self.remove_adapter = engine.add_adapter, engine.remove_adapter

    def submit(self, image: Any, prompt: Any, *, text: Any = None, region: Any = None, **options: Any) -> Any:
        prompt = prompt if isinstance(prompt, TokenizedPrompt) else self.prepare(prompt, text=text, region=region)
        return self.submit_many(image, [prompt], **options)[0]


@pytest.fixture(scope="module")
def process() -> Iterator[EngineProcess]:
    process = EngineProcess(num_lanes=2, step_timeout_s=LONG_S, heartbeat_s=LONG_S)
    yield process
    process.stop()


@pytest.fixture(params=["engine", "stand-in", pytest.param("process", marks=pytest.mark.slow)])
def engine(request: pytest.FixtureRequest, folder: Path) -> Iterator[Any]:
    if request.param == "stand-in":
        yield FakeEngine()
    elif request.param == "process":
        remote = request.getfixturevalue("process").load(LoadOptions(str(folder), device="cpu", precision="fp32", is_warmed_up=False))
        yield Submitting(remote)
        remote.close()
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
        ("<OD>", {"tiles": "many"}, InvalidOption, "tiles"),
        ("<CAPTION>", {"tiles": "2x2"}, InvalidOption, "tiles"),
        ("<OD>", {"tiles": "2x2", "on_event": print}, InvalidOption, "tiles"),
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


@pytest.mark.parametrize("prompt", ["<OD>", "<OCR_WITH_REGION>", "<CAPTION>", "a > b"])
def test_events_are_the_answer_piece_by_piece(engine: Any, prompt: str) -> None:
    events: list[Any] = []
    futures = engine.submit_many(IMAGE, ["<CAPTION>", prompt], on_event=events.append, scores=True)
    for index, result in enumerate(future.result(LONG_S) for future in futures):
        own = [event for event in events if event.index == index]
        decided = [event for event in own if isinstance(event, TokensDecided)]
        found = [event for event in own if isinstance(event, ObjectFound)]
        assert len(decided) > 1
        assert len(own) == len(decided) + len(found)
        assert "".join(event.text for event in decided) == result.text
        assert [token_id for event in decided for token_id in event.token_ids] == result.token_ids
        assert [value for event in decided for value in event.log_probabilities] == result.log_probabilities
        assert all(result.raw.startswith(event.raw) for event in decided)
        assert decided[-1].raw == result.raw
        assert [(event.object, event.bins) for event in found] == list(zip(result.objects, result.bins, strict=True))
        assert [event.object_index for event in found] == list(range(len(found)))


def test_results_say_what_they_took(engine: Any) -> None:
    for prompt in ("<OD>", "<REGION_TO_OCR>"):
        one = {"region": (0, 0, 9, 9)} if "REGION" in prompt else {}
        result = engine.submit(IMAGE, prompt, **one).result(LONG_S)
        usage = result.usage
        assert usage.num_answer_tokens == len(result.token_ids) == len(result.log_probabilities)
        assert sum(result.log_probabilities) == pytest.approx(result.log_probability)
        assert 0 < usage.num_image_tokens < usage.num_prompt_tokens
        assert all(isinstance(engine.token_bytes(token_id), bytes) for token_id in result.token_ids)
    assert engine.token_bytes(result.token_ids[0]) == b"<s>"


def test_a_listener_that_raises_fails_its_own_request(engine: Any) -> None:
    def broken(_: Any) -> None:
        raise KeyError("mine")

    failing, other = engine.submit(IMAGE, "<CAPTION>", on_event=broken), engine.submit(IMAGE, "<CAPTION>")
    with pytest.raises(EngineFailed, match="on_event raised KeyError") as caught:
        failing.result(LONG_S)
    assert isinstance(caught.value.__cause__, KeyError)
    assert other.result(LONG_S).task == "<CAPTION>"
    with pytest.raises(InvalidOption, match="function of one event"):
        engine.submit(IMAGE, "<CAPTION>", on_event="print")


def test_adapters_are_named_by_requests(engine: Any, tmp_path: Path) -> None:
    engine.add_adapter("mine", str(write_adapter(tmp_path / "mine", checkpoint_config())))
    futures = engine.submit_many(IMAGE, ["<CAPTION>"], adapter="mine")
    assert futures[0].result(LONG_S).task == "<CAPTION>"
    engine.remove_adapter("mine")
    with pytest.raises(InvalidOption, match="no adapter 'mine'"):
        engine.submit_many(IMAGE, ["<CAPTION>"], adapter="mine")
    with pytest.raises(InvalidOption, match="no adapter 'mine'"):
        engine.remove_adapter("mine")


def test_who_cancels_hears_no_more(engine: Any) -> None:
    if isinstance(engine, FakeEngine):
        engine.hold = True
    events: list[Any] = []
    futures = [engine.submit(IMAGE, "<CAPTION>") for _ in range(60)]
    last = engine.submit(IMAGE, "<CAPTION>", on_event=events.append)
    assert last.cancel()
    if isinstance(engine, FakeEngine):
        engine.release()
    futures[-1].result(LONG_S)
    engine.close()
    assert events == []
