"""What each tool asks the engine and answers, what is refused in which words, and calls that wait, fail, and are cancelled."""

from __future__ import annotations

import asyncio
import base64
import io
import threading
from typing import Any

import jsonschema
import pytest
from mcp import MCPError
from PIL import Image

from florence2.errors import CheckpointError, DownloadError, EngineClosed, EngineFailed, MissingExtra
from florence2.mcp import drawing
from florence2.mcp.answers import as_text
from florence2.mcp.tools import TOOLS, Detect
from florence2.results import Result
from tests.mcp.conftest import SIZE, Tools, words_of

THING = {"label": "thing", "box": [0, 0, 59, 39], "score": 0.5}


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_tools_are_listed_before_there_is_a_model(tools: Tools, mode: str) -> None:
    never = threading.Event()
    tools.load = lambda: never.wait() and None  # type: ignore[assignment,return-value]

    async def listed(client: Any) -> Any:
        assert tools.model is not None
        tools.model.start()
        return await client.list_tools(), client.instructions

    found, instructions = tools.talk(listed, mode=mode)
    never.set()
    assert [tool.name for tool in found.tools] == ["caption", "detect", "segment", "read_text", "ask"]
    for tool in found.tools:
        jsonschema.Draft202012Validator.check_schema(tool.input_schema)
        jsonschema.Draft202012Validator.check_schema(tool.output_schema)
        assert tool.output_schema["type"] == tool.input_schema["type"] == "object"
        assert tool.annotations.read_only_hint
        assert not tool.annotations.destructive_hint
        assert len(tool.description) > 100
        assert all(len(field.get("description", "")) > 15 for field in tool.input_schema["properties"].values())
    assert str(tools.folder) in instructions
    assert "a-model" in instructions


@pytest.mark.parametrize(
    ("tool", "arguments", "asked"),
    [
        ("caption", {"detail": "short"}, ["<CAPTION>"]),
        ("caption", {}, ["<DETAILED_CAPTION>"]),
        ("caption", {"detail": "paragraph"}, ["<MORE_DETAILED_CAPTION>"]),
        ("caption", {"region": [0, 0, 30, 20]}, ["<REGION_TO_DESCRIPTION><loc_0><loc_0><loc_500><loc_500>"]),
        ("detect", {}, ["<OD>"]),
        ("detect", {"labels": "description"}, ["<DENSE_REGION_CAPTION>"]),
        ("detect", {"labels": "none"}, ["<REGION_PROPOSAL>"]),
        ("detect", {"classes": ["a car", "dog"]}, ["<OPEN_VOCABULARY_DETECTION>a car", "<OPEN_VOCABULARY_DETECTION>dog"]),
        ("detect", {"classes": "a car, dog"}, ["<OPEN_VOCABULARY_DETECTION>a car", "<OPEN_VOCABULARY_DETECTION>dog"]),
        ("detect", {"classes": '["a car"]'}, ["<OPEN_VOCABULARY_DETECTION>a car"]),
        ("detect", {"sentence": "a car and a dog"}, ["<CAPTION_TO_PHRASE_GROUNDING>a car and a dog"]),
        ("segment", {"phrase": "a dog"}, ["<REFERRING_EXPRESSION_SEGMENTATION>a dog"]),
        ("segment", {"region": "0, 0, 30, 20"}, ["<REGION_TO_SEGMENTATION><loc_0><loc_0><loc_500><loc_500>"]),
        ("read_text", {}, ["<OCR>"]),
        ("read_text", {"places": True}, ["<OCR_WITH_REGION>"]),
        ("read_text", {"region": "[0, 0, 30, 20]"}, ["<REGION_TO_OCR><loc_0><loc_0><loc_500><loc_500>"]),
        ("ask", {"prompt": "<OD>"}, ["<OD>"]),
        ("ask", {"prompt": "<CAPTION_TO_PHRASE_GROUNDING>", "text": "a dog"}, ["<CAPTION_TO_PHRASE_GROUNDING>a dog"]),
        ("ask", {"prompt": "how many dogs?"}, ["how many dogs?"]),
        ("ask", {"prompt": "<MINE>", "allow_unknown_tag": True}, ["<MINE>"]),
    ],
)
def test_each_call_asks_what_it_means_and_answers_by_its_schema(tools: Tools, tool: str, arguments: Any, asked: list[str]) -> None:
    answer = tools.call(tool, image="a.png", **arguments)
    assert not answer.is_error, words_of(answer)
    assert [one["prompt"] for one in tools.engine.asked] == asked
    assert [picture.size for picture in tools.engine.pictures] == [SIZE] * len(asked)
    value = answer.structured_content
    jsonschema.validate(value, TOOLS[tool].answer_type.model_json_schema(mode="serialization"))
    assert value["image"] == {"width": 60, "height": 40}
    assert (value["model"], value["is_complete"]) == ("a-model", True)
    found = value.get("objects") or value.get("lines")
    if found is not None:
        assert [one["box"] for one in found] == [THING["box"]] * len(asked)
        assert "0, 0, 59, 39; score 0.50" in words_of(answer)
        assert all(one["scores"] for one in tools.engine.asked)
    if tool != "ask" or found is None:
        assert ("text" in value) == (tool in ("caption", "read_text", "ask"))
    if found is None:
        assert value["text"] == words_of(answer)
    else:
        assert "<loc_" not in words_of(answer)


@pytest.mark.parametrize(("tool", "prompt"), [("detect", "<OD>"), ("read_text", "<OCR>")])
def test_a_closer_look_is_one_in_tiles(tools: Tools, tool: str, prompt: str) -> None:
    for closer in (True, False):
        assert not tools.call(tool, image="a.png", closer=closer).is_error
    assert [(one["prompt"], one.get("tiles")) for one in tools.engine.asked] == [(prompt, "3x3"), (prompt, None)]


def test_an_outline_is_called_what_was_asked_for_and_absent_classes_are_named() -> None:
    nothing = Result("<OD>", "boxes", (60, 40), "", "")
    found = Result("<OD>", "boxes", (60, 40), "", "", boxes=[[1, 2, 3, 4]], labels=["dog"], scores=[0.25])
    answer = Detect(image="a", classes=["cat", "dog"]).answer([nothing, found], "m")
    assert answer.not_found == ["cat"]
    assert as_text(answer) == "1 object in the image of 60 x 40 pixels; x, y in pixels:\n- dog: box 1, 2, 3, 4; score 0.25\nNot found: cat"
    unnamed = Result("<S>", "polygons", (60, 40), "", "", polygons=[[[1, 2, 5, 2, 5, 9]]], labels=[""], finish_reason="length")
    outline = TOOLS["segment"](image="a", phrase="the dog").answer([unnamed], "m")  # type: ignore[call-arg]
    assert outline.objects[0].label == "the dog"
    assert outline.objects[0].polygons == [[1, 2, 5, 2, 5, 9]]
    assert not outline.is_complete
    assert "polygon 1, 2, 5, 2, 5, 9" in as_text(outline)
    assert "token limit" in as_text(outline)


@pytest.mark.parametrize(
    ("tool", "arguments", "told"),
    [
        ("detect", {"image": 5}, "image: input should be a valid string"),
        ("detect", {"image": "a.png", "classes": ["a"], "sentence": "b"}, "give one of them"),
        ("detect", {"image": "a.png", "classes": []}, "classes: list should have at least 1 item"),
        ("detect", {"image": "a.png", "classes": ["  "]}, "classes.0: string should have at least 1 character"),
        ("detect", {"image": "a.png", "classes": ["x"] * 21}, "at most 20 items"),
        ("detect", {"image": "a.png", "labels": "names"}, "'category', 'description' or 'none'"),
        ("detect", {"image": "a.png", "threshold": 0.5}, "there is no argument 'threshold'; detect takes image, draw, classes"),
        ("segment", {"image": "a.png"}, "either phrase (what to outline) or region"),
        ("segment", {"image": "a.png", "region": [0, 0, 61.5, 20]}, "inside its image of 60 x 40 pixels"),
        ("segment", {"image": "a.png", "region": [1, 2, 3]}, "region: list should have at least 4 items"),
        ("segment", {"image": "a.png", "region": "left"}, "region: input should be a valid list"),
        ("read_text", {"image": "a.png", "places": True, "region": [0, 0, 1, 1]}, "leave places out"),
        ("read_text", {"image": "a.png", "closer": True, "region": [0, 0, 1, 1]}, "leave closer out"),
        ("ask", {"image": "a.png"}, "prompt is missing: A task tag"),
        ("ask", {"image": "a.png", "prompt": "<ODD>"}, "did you mean <OD>?"),
        ("ask", {"image": "a.png", "prompt": "<MINE>"}, "allow_unknown_tag: true"),
        ("ask", {"image": "a.png", "prompt": "<REGION_TO_OCR>"}, "four pixels in region [x1, y1, x2, y2]"),
        ("ask", {"image": "a.png", "prompt": "word " * 300}, "prompt is too long"),
        ("ask", {"image": "a.png", "prompt": "<OD>", "max_new_tokens": 0}, "max_new_tokens: input should be greater than or equal to 1"),
    ],
)
def test_what_is_wrong_is_told_in_the_words_of_the_call(tools: Tools, tool: str, arguments: Any, told: str) -> None:
    message = tools.refused(tool, **arguments)
    assert told in message
    assert "Traceback" not in message
    assert len(message) < 800


def test_a_tool_that_there_is_not_is_an_error_of_the_protocol(tools: Tools) -> None:
    async def count(client: Any) -> None:
        with pytest.raises(MCPError, match="there is no tool 'count'; there are caption, detect"):
            await client.call_tool("count", {"image": "a.png"})

    tools.talk(count)


# Drawings


@pytest.mark.parametrize("tool", TOOLS)
def test_the_drawing_is_a_picture_of_bounded_size(tools: Tools, tool: str) -> None:
    Image.effect_noise((3000, 900), 100).convert("RGB").save(tools.folder / "large.jpg")
    needed: dict[str, Any] = {"segment": {"phrase": "x"}, "ask": {"prompt": "<OD>"}}.get(tool, {})
    answer = tools.call(tool, image="large.jpg", draw=True, **needed)
    text, image = answer.content
    assert (text.type, image.type, image.mime_type) == ("text", "image", "image/jpeg")
    data = base64.b64decode(image.data)
    assert len(data) <= drawing.MAX_BYTES
    picture = Image.open(io.BytesIO(data))
    assert picture.format == "JPEG"
    assert max(picture.size) == 1024
    assert answer.structured_content["image"] == {"width": 3000, "height": 900}


def test_answers_of_several_classes_are_one_drawing() -> None:
    box = Result("<A>", "boxes", (60, 40), "", "", boxes=[[1, 2, 30, 30]], labels=["cat"], scores=[0.5])
    outline = Result("<A>", "polygons", (60, 40), "", "", polygons=[[[1, 2, 5, 2, 5, 9]]], labels=["dog"], scores=[0.75])
    assert drawing.merged([box]) is box
    both = drawing.merged([box, box])
    assert (both.kind, both.boxes, both.labels, both.scores) == ("boxes", [[1, 2, 30, 30]] * 2, ["cat", "cat"], [0.5, 0.5])
    mixed = drawing.merged([box, outline])
    assert (mixed.kind, mixed.polygons) == ("polygons", [[[1, 2, 30, 2, 30, 30, 1, 30]], [[1, 2, 5, 2, 5, 9]]])
    assert drawing.drawn(Image.new("RGB", (1, 5000)), [Result("<A>", "text", (1, 5000), "words " * 500, "")])


# Calls that wait, fail and end


def test_several_calls_run_together(tools: Tools) -> None:
    tools.engine.hold = True

    async def both(client: Any) -> Any:
        calls = [
            asyncio.ensure_future(client.call_tool("caption", {"image": "a.png", "detail": detail})) for detail in ("short", "detailed")
        ]
        while len(tools.engine.asked) < 2:
            await asyncio.sleep(0.01)
        tools.engine.release()
        return await asyncio.gather(*calls)

    first, second = tools.talk(both)
    assert first.structured_content["text"] != second.structured_content["text"]


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_a_call_that_is_cancelled_frees_its_rows(tools: Tools, mode: str) -> None:
    tools.engine.hold = True

    async def left(client: Any) -> Any:
        call = asyncio.ensure_future(client.call_tool("detect", {"image": "a.png", "classes": ["a", "b"]}))
        while len(tools.engine.futures) < 2:
            await asyncio.sleep(0.01)
        call.cancel()
        await asyncio.wait([call])
        while not all(future.cancelled() for future in tools.engine.futures):
            await asyncio.sleep(0.01)
        tools.engine.hold = False
        return await client.call_tool("caption", {"image": "a.png"})

    assert not tools.talk(left, mode=mode).is_error


def test_a_failed_load_is_told_and_tried_again(tools: Tools, caplog: pytest.LogCaptureFixture) -> None:
    failures = [DownloadError("the hub can't be reached; try again later"), OSError("/secret/place")]

    def load() -> Any:
        if failures:
            raise failures.pop(0)
        return tools.engine

    tools.load = load

    async def thrice(client: Any) -> Any:
        return [await client.call_tool("caption", {"image": "a.png"}) for _ in range(3)]

    offline, broken, answer = tools.talk(thrice)
    assert (offline.is_error, words_of(offline)) == (True, "the hub can't be reached; try again later")
    assert broken.is_error
    assert "secret" not in words_of(broken)
    assert "/secret/place" in caplog.text
    assert not answer.is_error


@pytest.mark.parametrize("error", [CheckpointError("base is no checkpoint"), MissingExtra("florence2 mcp needs the extra 'engine'")])
def test_why_a_model_can_not_be_loaded_is_told(tools: Tools, error: Exception) -> None:
    def load() -> Any:
        raise error

    tools.load = load
    assert tools.refused("caption", image="a.png") == str(error)


def test_an_argument_that_is_null_is_left_out(tools: Tools) -> None:
    assert tools.refused("caption", image=None).startswith("image is missing: ")
    assert not tools.call("caption", image="a.png", detail=None, draw=None, region=None).is_error


def test_an_error_of_the_engine_stays_in_the_log(tools: Tools, caplog: pytest.LogCaptureFixture) -> None:
    tools.engine.failure = EngineFailed("a step failed in /secret/place")
    answer = tools.call("caption", image="a.png")
    assert answer.is_error
    assert words_of(answer).startswith("The model failed to answer. Call again")
    assert "a step failed in /secret/place" in caplog.text


def test_after_an_engine_has_ended_the_next_call_loads_another(tools: Tools) -> None:
    loads = []

    def load() -> Any:
        loads.append(1)
        tools.engine.is_closed = len(loads) == 1
        return tools.engine

    tools.load = load

    async def twice(client: Any) -> Any:
        return [await client.call_tool("caption", {"image": "a.png"}) for _ in range(2)]

    first, second = tools.talk(twice)
    assert (first.is_error, words_of(first)) == (True, str(EngineClosed("the engine is closed")))
    assert (second.is_error, len(loads)) == (False, 2)


def test_a_host_hears_that_the_model_is_loaded(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("florence2.mcp.server.PROGRESS_S", 0.05)
    may_load = threading.Event()
    tools.load = lambda: may_load.wait() and tools.engine  # type: ignore[assignment,return-value]
    heard: list[str | None] = []

    async def report(progress: float, total: float | None, message: str | None) -> None:
        heard.append(message)
        may_load.set()

    answer = tools.talk(lambda client: client.call_tool("caption", {"image": "a.png"}, progress_callback=report))
    assert not answer.is_error
    assert heard[0] == "a-model is being loaded"
