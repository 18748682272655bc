from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from florence2 import draw
from florence2.client import Answer, InvalidParameterError, ModelDescription, RegisteredModels, ServerInfo, UnexpectedAnswer
from florence2.client.answers import scaled_back, scaled_region, typed
from florence2.errors import InvalidOption
from florence2.results import Result
from florence2.tasks.coordinates import dequantize


def envelope(response: Any, **more: Any) -> dict[str, Any]:
    return {"inference_id": "i-1", "time": 0.5, "image": {"width": 640, "height": 480}, "response": response, **more}


def one(response: Any, **more: Any) -> Answer:
    answer = typed(envelope(response, **more))
    assert isinstance(answer, Answer)
    return answer


CASES: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
    ({"<CAPTION>": "a dog"}, "text", {"text": "a dog"}),
    ({"<OD>": {"bboxes": [[1, 2, 3, 4]], "labels": ["dog"]}}, "boxes", {"boxes": [[1, 2, 3, 4]], "labels": ["dog"]}),
    (
        {"<OCR_WITH_REGION>": {"quad_boxes": [[1, 2, 3, 2, 3, 4, 1, 4]], "labels": ["A"]}},
        "quads",
        {"quads": [[1, 2, 3, 2, 3, 4, 1, 4]], "labels": ["A"]},
    ),
    (
        {"<REGION_TO_SEGMENTATION>": {"polygons": [[[1, 2, 3, 2, 3, 4]]], "labels": [""]}},
        "polygons",
        {"polygons": [[[1, 2, 3, 2, 3, 4]]], "labels": [""]},
    ),
    (
        {"<OPEN_VOCABULARY_DETECTION>": {"bboxes": [[1, 2, 3, 4]], "bboxes_labels": ["dog"], "polygons": [], "polygons_labels": []}},
        "boxes_or_polygons",
        {"boxes": [[1, 2, 3, 4]], "labels": ["dog"]},
    ),
    (
        {
            "<OPEN_VOCABULARY_DETECTION>": {
                "bboxes": [],
                "bboxes_labels": [],
                "polygons": [[[1, 2, 3, 4, 5, 6]]],
                "polygons_labels": ["cat"],
            }
        },
        "boxes_or_polygons",
        {"polygons": [[[1, 2, 3, 4, 5, 6]]], "labels": ["cat"]},
    ),
    ({"<OD>": {"bboxes": [], "labels": []}}, "boxes", {"boxes": [], "labels": []}),
]


@pytest.mark.parametrize(("response", "kind", "fields"), CASES)
def test_answers_are_results(response: dict[str, Any], kind: str, fields: dict[str, Any]) -> None:
    answer = one(response)
    assert isinstance(answer, Result)
    assert (answer.task, answer.kind, answer.image_size) == (next(iter(response)), kind, (640, 480))
    assert {name: getattr(answer, name) for name in fields} == fields
    assert answer.to_dict() == answer.response == response
    assert (answer.inference_id, answer.time_s) == ("i-1", 0.5)
    draw.annotate(Image.new("RGB", (640, 480)), answer)


def test_scores_and_what_the_model_wrote() -> None:
    raw = {"text": "</s><s>dog</s>", "token_ids": [2, 0, 9, 2], "finish_reason": "length", "log_probability": -1.5}
    answer = one({"<OD>": {"bboxes": [[1, 2, 3, 4]], "labels": ["dog"], "scores": [0.75]}}, raw=raw)
    assert (answer.raw, answer.token_ids, answer.finish_reason, answer.log_probability) == tuple(raw.values())
    assert answer.scores == [0.75]
    assert "scores" not in answer.to_dict(scores=False)["<OD>"]
    with pytest.raises(InvalidOption, match="scores"):
        one({"<OD>": {"bboxes": [], "labels": []}}).to_dict(scores=True)


def test_unrounded_coordinates_have_to_be_asked_for() -> None:
    exact = {"<OD>": {"bboxes": [[1.5, 2.25, 3.0, 4.0]], "labels": ["dog"]}}
    assert one(exact).to_dict(coordinates="float") == exact
    assert one({"<OD>": {"bboxes": [], "labels": []}}).to_dict(coordinates="float") == {"<OD>": {"bboxes": [], "labels": []}}
    with pytest.raises(InvalidParameterError, match="coordinates='float'"):
        one(CASES[1][0]).to_dict(coordinates="float")
    with pytest.raises(InvalidOption, match="coordinates"):
        one(exact).to_dict(coordinates="half")  # type: ignore[arg-type]


def test_several_prompts_are_several_answers() -> None:
    answers = typed(envelope([{"<CAPTION>": "a"}, {"<OCR>": "b"}], raw=[{"text": "x"}, {"text": "y"}]))
    assert isinstance(answers, list)
    assert [(answer.task, answer.text, answer.raw) for answer in answers] == [("<CAPTION>", "a", "x"), ("<OCR>", "b", "y")]


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"response": None},
        envelope({}),
        envelope({"<A>": "a", "<B>": "b"}),
        envelope({"<OD>": {"boxes": []}}),
        envelope({"<OD>": 5}),
        {"response": {"<CAPTION>": "a"}},
    ],
)
def test_other_answers_are_not_expected(answer: dict[str, Any]) -> None:
    with pytest.raises(UnexpectedAnswer, match="form"):
        typed(answer)


def test_scaling_back_moves_coordinates_only() -> None:
    value = {"bboxes": [[0, 0, 31, 23]], "labels": ["dog"], "scores": [0.5]}
    small = {**envelope([{"<OD>": value}, {"<CAPTION>": "7"}]), "image": {"width": 32, "height": 24}}
    assert scaled_back(small, (32, 24), (64, 96)) == {
        **small,
        "image": {"width": 64, "height": 96},
        "response": [{"<OD>": {**value, "bboxes": [[1, 2, 63, 94]]}}, {"<CAPTION>": "7"}],
    }
    nested = {"image": {}, "response": {"<REGION_TO_SEGMENTATION>": {"polygons": [[[1.0, 2.0, 3.0, 4.0], []]], "labels": [""]}}}
    moved = scaled_back(nested, (10, 10), (20, 40))["response"]
    assert moved == {"<REGION_TO_SEGMENTATION>": {"polygons": [[[2.0, 8.0, 6.0, 16.0], []]], "labels": [""]}}
    assert value["bboxes"] == [[0, 0, 31, 23]]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 999), st.integers(1000, 6000), st.integers(400, 1000))
def test_scaled_back_coordinates_are_within_a_pixel_that_was_sent(location: int, original: int, sent: int) -> None:
    exact = (location + 0.5) * original / 1000
    small = int(dequantize([location] * 4, (sent, sent))[0])
    answer = {"image": {}, "response": {"<OD>": {"bboxes": [[small] * 4], "labels": [""]}}}
    back = scaled_back(answer, (sent, sent), (original, original))["response"]["<OD>"]["bboxes"][0][0]
    assert 0 <= back < original
    assert abs(back - exact) <= original / sent / 2 + 1


def test_regions_are_scaled_like_the_picture() -> None:
    assert scaled_region((10, 20, 30, 40), (64, 96), (32, 24)) == [5.0, 5.0, 15.0, 10.0]
    assert scaled_region("<loc_1><loc_2><loc_3><loc_4>", (64, 96), (32, 24)) == "<loc_1><loc_2><loc_3><loc_4>"
    assert scaled_region(None, (64, 96), (32, 24)) is None


def test_management_answers_of_any_server() -> None:
    assert ServerInfo.from_dict({"name": "n", "version": "v", "uuid": "u", "more": 1}) == ServerInfo("n", "v", "u")
    assert ServerInfo.from_dict({}).to_dict() == {"name": "", "version": "", "uuid": ""}
    models = RegisteredModels.from_dict({"models": [{"model_id": "m", "task_type": "lmm", "batch_size": 4, "vram_bytes": None}]})
    assert models.models == [ModelDescription("m", "lmm", batch_size=4)]
    assert models.to_dict()["models"][0]["request_aliases"] == []


@pytest.mark.parametrize("region", [["a", 2, 3, 4], 5])
def test_a_region_that_can_not_be_scaled_is_refused(region: object) -> None:
    with pytest.raises(InvalidParameterError) as caught:
        scaled_region(region, (100, 100), (50, 50))
    assert caught.value.field == "region"
