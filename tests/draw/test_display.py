"""Results in notebooks, on screens and without one."""

from __future__ import annotations

import base64
import copy
import html
import io
import json
import pickle
import sys
import types
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageShow

import florence2
from florence2.client import Answer
from florence2.draw import annotate
from florence2.draw import display as displaying
from florence2.errors import InvalidImage, InvalidOption
from florence2.results import Result
from florence2.sources import remember


def noise(width: int, height: int) -> Image.Image:
    small = np.random.default_rng(0).integers(0, 256, (height // 10, width // 10, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height))


def od(picture: Image.Image, source: Any = None, **content: Any) -> Result:
    found = {"boxes": [[10, 10, 60, 60]], "labels": ["cat"], **content}
    return Result("<OD>", "boxes", picture.size, "", "", _source=remember(picture if source is None else source), **found)


def preview_of(bundle: dict[str, str]) -> tuple[Image.Image, int]:
    data = base64.b64decode(bundle["text/html"].partition("base64,")[2].partition('"')[0])
    return Image.open(io.BytesIO(data)), len(data)


def test_annotate_draws_on_what_was_asked_about(tmp_path: Path) -> None:
    picture = noise(320, 240)
    picture.save(tmp_path / "a.png")
    wanted = annotate(picture, od(picture))
    for source in (picture, tmp_path / "a.png", (tmp_path / "a.png").read_bytes(), np.asarray(picture)):
        result = od(picture, source)
        assert np.array_equal(np.asarray(result.annotate()), np.asarray(wanted))
        assert np.array_equal(np.asarray(annotate(None, result)), np.asarray(wanted))
    assert np.array_equal(np.asarray(replace(od(picture), _source=None).annotate(picture)), np.asarray(wanted))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, replace])
def test_copies_refer_to_the_same_picture(copied: Callable[[Result], Result]) -> None:
    picture = noise(320, 240)
    result = od(picture, scores=[0.5])
    twin = copied(result)
    assert twin == result
    assert twin is not result
    assert twin.source is result.source
    assert np.array_equal(np.asarray(twin.annotate()), np.asarray(result.annotate()))
    bare = copied(replace(result, _source=None))
    assert bare == result
    assert bare.source is None
    assert (twin.boxes is result.boxes) == (copied is not copy.deepcopy)


def test_copies_of_answers_are_answers() -> None:
    answer = Answer("<OD>", "boxes", (320, 240), "", "", [[10, 10, 60, 60]], labels=["cat"], inference_id="7", response=FOUND)
    for twin in (copy.copy(answer), copy.deepcopy(answer)):
        assert type(twin) is Answer
        assert twin == answer
    twin.response["<OD>"]["labels"].append("dog")
    assert FOUND["<OD>"]["labels"] == ["cat"]


def test_the_picture_is_no_part_of_the_value() -> None:
    picture = noise(320, 240)
    result, bare = od(picture), replace(od(picture), _source=None)
    assert result == bare
    assert repr(result) == repr(bare)
    assert asdict(result) == asdict(bare)
    assert "_source" not in {field.name for field in fields(result)}
    assert result.to_dict() == bare.to_dict()
    assert len(pickle.dumps(result)) < 2000
    assert replace(result, labels=["dog"]).source is result.source
    travelled = pickle.loads(pickle.dumps(result))
    assert travelled == result
    assert travelled.source is None
    with pytest.raises(InvalidImage, match="pass the picture"):
        travelled.annotate()
    assert travelled.annotate(picture).size == picture.size


def test_a_result_that_travelled_knows_in_which_frame_it_counts() -> None:
    picture = noise(300, 300)
    picture.getexif()[0x0112] = 3
    file = io.BytesIO()
    picture.save(file, "JPEG", exif=picture.getexif())
    stored = Image.open(file)
    travelled = pickle.loads(pickle.dumps(od(stored)))
    assert np.array_equal(np.asarray(travelled.annotate(stored)), np.asarray(annotate(np.asarray(stored), od(stored))))


def test_a_notebook_shows_picture_beside_text() -> None:
    picture = noise(320, 240)
    result = od(picture, labels=["<script>alert(1)</script> 'q' & \"d\" 고양이"], scores=[0.5])
    bundle = result._repr_mimebundle_()
    assert bundle["text/plain"] == repr(result)
    page = bundle["text/html"]
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "고양이" in page
    assert "0.50" in page
    assert "10, 10, 60, 60" in page
    preview, _ = preview_of(bundle)
    assert preview.size == (320, 240)
    assert not np.array_equal(np.asarray(preview.convert("RGB")), np.asarray(picture))


def test_a_text_answer_is_escaped_and_bounded() -> None:
    picture = noise(320, 240)
    result = Result("<CAPTION>", "text", picture.size, "<b>bold</b>\n" + "x" * 10**6, "", finish_reason="length", _source=remember(picture))
    page = result._repr_mimebundle_()["text/html"]
    assert html.escape("<b>bold</b>") in page
    assert "<b>bold" not in page
    assert "cut at the token limit" in page


@pytest.mark.parametrize("size", [(8000, 6000), (6000, 200), (200, 6000)])
def test_a_preview_of_a_large_photo_is_small(size: tuple[int, int]) -> None:
    picture = noise(*size)
    bundle = od(picture, boxes=[[10, 10, size[0] - 10, size[1] - 10]])._repr_mimebundle_()
    preview, num_bytes = preview_of(bundle)
    assert max(preview.size) == 800
    assert num_bytes < 400_000
    assert len(bundle["text/html"]) < 600_000


def test_flat_drawings_stay_exact_and_photos_become_jpeg() -> None:
    flat = Image.new("RGB", (600, 400), "white")
    assert preview_of(od(flat)._repr_mimebundle_())[0].format == "PNG"
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 256, (600, 800, 3), dtype=np.uint8))
    assert preview_of(od(photo)._repr_mimebundle_())[0].format == "JPEG"


@pytest.mark.slow
def test_many_objects_are_counted() -> None:
    picture = noise(320, 240)
    page = od(picture, boxes=[[1, 1, 9, 9]] * 300, labels=["a"] * 300)._repr_mimebundle_()["text/html"]
    assert page.count("<tr>") == displaying.MAX_ROWS
    assert f"and {300 - displaying.MAX_ROWS} more" in page


def test_without_its_picture_a_notebook_shows_text_alone(tmp_path: Path) -> None:
    picture = noise(320, 240)
    picture.save(tmp_path / "a.png")
    changed = od(picture, tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(b"something else")
    for result in (changed, pickle.loads(pickle.dumps(changed)), replace(changed, image_size=(1, 1), _source=remember(picture))):
        assert result._repr_mimebundle_(include=None, exclude=None) == {"text/plain": repr(result)}


@pytest.mark.parametrize(("size", "shown_size"), [((320, 240), (320, 240)), ((6000, 4000), (1600, 1067))])
def test_a_notebook_is_shown_the_picture(monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], shown_size: tuple[int, int]) -> None:
    """As one file of limited size, however large the picture is."""
    shown: list[dict[str, str]] = []
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: types.SimpleNamespace(kernel=object())  # pyright: ignore[reportAttributeAccessIssue]
    module = types.ModuleType("IPython.display")
    module.display = lambda bundle, raw: shown.append(bundle)  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    od(noise(*size)).show()
    ((name, data),) = [(name, data) for name, data in shown[0].items() if name.startswith("image/")]
    assert len(data) < 1_500_000  # noise compresses worst
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    assert picture.size == shown_size
    assert f"image/{(picture.format or '').lower()}" == name


def test_a_screen_is_shown_the_picture(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    shown: list[Image.Image] = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(ImageShow, "show", lambda image, title: shown.append(image) or True)
    od(noise(320, 240)).show()
    assert shown[0].size == (320, 240)
    assert capsys.readouterr().out == ""


def test_without_a_screen_a_file_is_written(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(displaying.tempfile, "tempdir", str(tmp_path))
    od(noise(320, 240)).show()
    path = Path(capsys.readouterr().out.strip().rpartition("drawn: ")[2])
    with Image.open(path) as drawn:
        assert drawn.size == (320, 240)


SERVER = {"inference_id": "1", "time": 0.1, "image": {"width": 320, "height": 240}}
FOUND = {"<OD>": {"bboxes": [[10, 10, 60, 60]], "labels": ["cat"]}}


def test_dictionaries_of_answers_can_be_drawn() -> None:
    picture = noise(320, 240)
    wanted = np.asarray(annotate(picture, od(picture)))
    for result in (
        Result.from_dict(FOUND, (320, 240)),
        Result.from_dict({**SERVER, "response": FOUND}),
        Result.from_dict({"response": FOUND}, image_size=picture.size),
        Result.from_dict({"image": "a.png", "size": [320, 240], "response": FOUND}),  # a line of infer --json
        Result.from_dict(od(picture).to_dict(), list(np.array([320, 240]))),
    ):
        assert np.array_equal(np.asarray(result.annotate(picture)), wanted)
    parsed = florence2.parse("<OD>", "cat<loc_31><loc_41><loc_187><loc_249>", (320, 240))
    assert Result.from_dict(parsed, (320, 240)).boxes == [[10, 9, 60, 59]]


@pytest.mark.parametrize(
    "answer",
    [
        {"<CAPTION>": "a cat"},
        {"<OCR_WITH_REGION>": {"quad_boxes": [[1, 2, 3, 2, 3, 4, 1, 4]], "labels": ["A"]}},
        {"<REGION_TO_SEGMENTATION>": {"polygons": [[[1, 2, 3, 2, 3, 4], [5, 6]]], "labels": [""]}},
        {"<OPEN_VOCABULARY_DETECTION>": {"bboxes": [], "bboxes_labels": [], "polygons": [[[1, 2, 3, 4]]], "polygons_labels": ["x"]}},
        {"<OD>": {"bboxes": [[1, 2, 3, 4]], "labels": ["a"], "scores": [0.5]}},
        {"<OD>": {"bboxes": [], "labels": []}},
    ],
)
def test_a_dictionary_goes_there_and_back(answer: dict[str, Any]) -> None:
    result = Result.from_dict(answer, (64, 48))
    assert result.to_dict() == answer
    assert result.annotate(Image.new("RGB", (64, 48))).width == 64


def test_numbers_of_any_library_become_those_of_python() -> None:
    box, score = np.array([1, 2, 3, 4]), np.float32(0.5)
    result = Result.from_dict({"<OD>": {"bboxes": [box], "labels": ["a"], "scores": [score]}}, list(np.array([64, 48])))
    assert json.loads(json.dumps(result.to_dict())) == {"<OD>": {"bboxes": [[1, 2, 3, 4]], "labels": ["a"], "scores": [0.5]}}


def test_why_an_answer_ended_is_read_from_servers_and_lines() -> None:
    raw = {"text": "<s>cat", "token_ids": [0, 5], "finish_reason": "length", "log_probability": -1.0}
    result = Result.from_dict({**SERVER, "response": FOUND, "raw": raw})
    assert (result.raw, result.token_ids, result.finish_reason, result.log_probability) == tuple(raw.values())
    line = {"image": "a.png", "size": [320, 240], "finish_reason": "length", "response": FOUND}
    assert Result.from_dict(line).finish_reason == "length"
    assert Result.from_dict({**line, "finish_reason": "stop"}).finish_reason == "stop"
    assert Result.from_dict({**SERVER, "response": FOUND}).finish_reason == "stop"


@pytest.mark.parametrize(
    ("answer", "size", "field"),
    [
        ({}, (1, 1), "answer"),
        ({"<OD>": {"bboxes": []}}, (1, 1), "answer"),
        ({"a": "b", "c": "d"}, (1, 1), "answer"),
        ({"response": [FOUND, FOUND]}, (1, 1), "answer"),
        ("<OD>", (1, 1), "answer"),
        ({"<OD>": None}, (1, 1), "answer"),
        ({"response": FOUND, "image": {"width": 3, "height": 3}, "raw": [1]}, None, "answer"),
        ({"<OD>": {"bboxes": [[1, 2, 3]], "labels": ["a"]}}, (1, 1), "answer"),
        ({"<OD>": {"bboxes": [[1, 2, 3, None]], "labels": ["a"]}}, (1, 1), "answer"),
        ({"<OD>": {"bboxes": [[1, 2, 3, float("nan")]], "labels": ["a"]}}, (1, 1), "answer"),
        ({"<OD>": {"bboxes": [1, 2, 3, 4], "labels": ["a"]}}, (1, 1), "answer"),
        ({"<OD>": {"bboxes": ["1234"], "labels": ["a"]}}, (1, 1), "answer"),
        ({"<OD>": {"bboxes": [[1, 2, 3, 4]], "labels": ["a"], "scores": [None]}}, (1, 1), "answer"),
        ({"<OD>": {"bboxes": [[1, 2, 3, 4]], "labels": ["a"], "scores": 0.5}}, (1, 1), "answer"),
        ({"<OCR_WITH_REGION>": {"quad_boxes": [[1, 2, 3, 4]], "labels": ["a"]}}, (1, 1), "answer"),
        ({"<REGION_TO_SEGMENTATION>": {"polygons": [[1, 2, 3, 4]], "labels": ["a"]}}, (1, 1), "answer"),
        (FOUND, None, "image_size"),
        ({"response": FOUND, "image": {"width": 3}}, None, "image_size"),
        (FOUND, (0, 4), "image_size"),
        (FOUND, (1.5, 4), "image_size"),
    ],
)
def test_other_dictionaries_are_refused(answer: Any, size: Any, field: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        Result.from_dict(answer, size)
    assert caught.value.field == field
    assert len(caught.value.message) < 500
