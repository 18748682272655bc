"""From generated ids to results: answers, framing tokens, scores."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from florence2.errors import InvalidOption
from florence2.results import Result
from florence2.tasks import TASKS, Tokenizer, build_prompt, interpret, parse
from florence2.tasks.prompt import Prompt
from tests.tasks.tiny_tokenizer import write_tokenizer_json

SIZE = (640, 480)
TWO_CATS = "the cat<loc_1><loc_2><loc_3><loc_4><loc_5><loc_6><loc_7><loc_8>"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.load(write_tokenizer_json(tmp_path_factory.mktemp("tiny")))


def _prompt(tag: str) -> Prompt:
    task = TASKS[tag]
    return Prompt(tag, tag, task.template, task.kind)


def _run(tokenizer: Tokenizer, tag: str, text: str, **arguments) -> Result:
    ids = tokenizer.encode(text)
    given_values = {"log_probabilities": [-0.1] * len(ids), "finish_reason": "stop", "image_size": SIZE, **arguments}
    return interpret(_prompt(tag), token_ids=ids, tokenizer=tokenizer, **given_values)


def test_a_text_answer(tokenizer: Tokenizer) -> None:
    result = _run(tokenizer, "<CAPTION>", " the cat", scores=True)
    assert (result.text, result.raw, result.kind, result.task) == ("the cat", "<s> the cat</s>", "text", "<CAPTION>")
    assert result.to_dict() == {"<CAPTION>": "the cat"}
    assert (result.scores, result.labels, result.boxes) == (None, [], [])
    assert result.log_probability == pytest.approx(-0.1 * len(result.token_ids))


def test_a_free_prompts_answer_has_its_key(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("cat")
    prompt = build_prompt("what > this")
    result = interpret(prompt, token_ids=ids, log_probabilities=None, tokenizer=tokenizer, image_size=SIZE, finish_reason="length")
    assert result.to_dict() == {"what >": "cat"}
    assert (result.finish_reason, result.log_probability) == ("length", None)


def _sure_of(bins: Sequence[int], masses: Sequence[float]) -> list[np.ndarray]:
    """For each bin what a model may hold of every location: a mass on the bin itself, the rest far away."""
    rows = np.zeros((len(bins), 1000), dtype=np.float32)
    for row, value, mass in zip(rows, bins, masses, strict=True):
        row[value], row[(value + 500) % 1000] = mass, 1 - mass
    return list(rows)


def _aligned(tokenizer: Tokenizer, ids: Sequence[int], rows: Sequence[np.ndarray]) -> list[np.ndarray | None]:
    """The rows at the places of the location tokens, in their order."""
    remaining = iter(rows)
    return [next(remaining) if index in tokenizer.location_ids else None for index in ids]


def test_a_score_is_the_labels_probability_times_the_certainty_of_the_place(tokenizer: Tokenizer) -> None:
    bins = [100, 100, 300, 300, 500, 600, 700, 900]
    text = "the cat" + "".join(f"<loc_{value}>" for value in bins)
    ids = tokenizer.encode(text)
    num_label_tokens = len(ids) - 2 - 8
    probabilities = [-9.0, *[-0.5] * num_label_tokens, -0.1, -0.2, -0.3, -0.4, -1.0, -1.0, -1.0, -2.0, -9.0]
    rows = _aligned(tokenizer, ids, _sure_of(bins, [1.0, 1.0, 1.0, 0.5, 0.9, 0.8, 1.0, 1.0]))
    result = _run(tokenizer, "<OD>", text, log_probabilities=probabilities, location_probabilities=rows, scores=True)
    assert result.scores == pytest.approx([math.exp(-0.5) * 0.5, math.exp(-0.5) * 0.9 * 0.8])
    assert result.label_scores == pytest.approx([math.exp(-0.5)] * 2)
    assert result.location_scores == pytest.approx([math.exp(-0.25), math.exp(-1.25)])  # of the very bins, however sure their surroundings
    assert result.to_dict()["<OD>"]["scores"] == result.scores
    assert "scores" not in result.to_dict(scores=False)["<OD>"]


def test_the_length_of_a_label_does_not_lower_its_score(tokenizer: Tokenizer) -> None:
    for label in ("the", "the cat", "the cat in the cat in the cat"):
        text = label + "<loc_100><loc_100><loc_300><loc_300>"
        ids = tokenizer.encode(text)
        rows = _aligned(tokenizer, ids, _sure_of([100, 100, 300, 300], [1.0] * 4))
        result = _run(tokenizer, "<OD>", text, location_probabilities=rows, scores=True)
        assert result.scores == pytest.approx([math.exp(-0.1)])


def test_scores_find_their_tokens_whatever_frames_and_characters_stand_before(tokenizer: Tokenizer) -> None:
    ids = [2, 0, 1, *tokenizer.encode("é🙂<loc_9><loc_9><loc_59><loc_59>né<loc_100><loc_200><loc_300><loc_400>")]
    text, offsets = tokenizer.decode_with_offsets(ids)
    second = text.index("né")
    probabilities = [-0.25 if start >= second else -7.0 for start, _ in offsets]
    rows = _aligned(tokenizer, ids, _sure_of([9, 9, 59, 59, 100, 200, 300, 400], [1, 1, 1, 0.5, 1, 1, 0.75, 1]))
    arguments = {"log_probabilities": probabilities, "tokenizer": tokenizer, "image_size": SIZE, "finish_reason": "stop"}
    result = interpret(_prompt("<OD>"), token_ids=ids, location_probabilities=rows, scores=True, **arguments)
    assert result.labels == ["é🙂", "né"]
    assert result.scores == pytest.approx([math.exp(-7) * 0.5, math.exp(-0.25) * 0.75])


def test_objects_without_a_label_have_a_location_score_alone(tokenizer: Tokenizer) -> None:
    text = "<loc_100><loc_200><loc_300><loc_400>"
    rows = _aligned(tokenizer, tokenizer.encode(text), _sure_of([100, 200, 300, 400], [1, 0.25, 1, 1]))
    result = _run(tokenizer, "<REGION_PROPOSAL>", text, location_probabilities=rows, scores=True)
    assert (result.labels, result.label_scores) == ([""], [None])
    assert result.location_scores == pytest.approx([math.exp(-0.1)])
    assert result.scores == pytest.approx([0.25])


def test_where_nothing_is_known_of_other_locations_a_places_own_tokens_count(tokenizer: Tokenizer) -> None:
    known = _run(tokenizer, "<OD>", "cat<loc_100><loc_200><loc_300><loc_400>", scores=True)
    assert known.scores == pytest.approx([math.exp(-0.1) * math.exp(-0.4)])
    # The last location is spelt out in letters; no token stands for it.
    ids = [*tokenizer.encode("cat<loc_100><loc_200><loc_300>")[:-1], *tokenizer.encode("<loc_")[1:-1], *tokenizer.encode("400>")[1:-1]]
    assert sum(index in tokenizer.location_ids for index in ids) == 3
    rows = _aligned(tokenizer, ids, _sure_of([100, 200, 300], [1, 0.5, 1]))
    arguments = {"log_probabilities": [-0.1] * len(ids), "tokenizer": tokenizer, "image_size": SIZE, "finish_reason": "length"}
    spelt = interpret(_prompt("<OD>"), token_ids=ids, location_probabilities=rows, scores=True, **arguments)
    assert spelt.bins == [[100, 200, 300, 400]]
    num_letters = len(ids) - 5
    assert spelt.scores == pytest.approx([math.exp(-0.1) * 0.5 * math.exp(-0.1 * num_letters)])


def test_an_outline_counts_as_its_least_sure_coordinate(tokenizer: Tokenizer) -> None:
    bins = [100, 100, 300, 100, 300, 300, 100, 300]
    places = "".join(f"<loc_{value}>" for value in bins)
    for tag, text, label in (
        ("<OCR_WITH_REGION>", "the" + places, math.exp(-0.1)),
        ("<REFERRING_EXPRESSION_SEGMENTATION>", places[: len(places) // 2] + "<sep>" + places[len(places) // 2 :], 1.0),
    ):
        ids = tokenizer.encode(text)
        rows = _aligned(tokenizer, ids, _sure_of(bins, [0.9, 0.8, 0.95, 0.6, 0.9, 0.9, 0.9, 0.9]))
        result = _run(tokenizer, tag, text, location_probabilities=rows, scores=True)
        assert result.scores == pytest.approx([label * 0.6]), tag


@pytest.mark.parametrize(
    ("tag", "text", "shape"),
    [
        ("<OCR_WITH_REGION>", "the<loc_1><loc_2><loc_3><loc_4><loc_5><loc_6><loc_7><loc_8>", "quads"),
        ("<REFERRING_EXPRESSION_SEGMENTATION>", "<loc_1><loc_2><loc_3><loc_4><sep><loc_5><loc_6><loc_7>", "polygons"),
        ("<OPEN_VOCABULARY_DETECTION>", "cat<poly><loc_1><loc_2><loc_3><loc_4></poly>", "polygons"),
        ("<OPEN_VOCABULARY_DETECTION>", "cat<loc_1><loc_2><loc_3><loc_4>", "boxes"),
        ("<OD>", TWO_CATS, "boxes"),
    ],
)
def test_objects_stand_in_their_own_list_and_score(tokenizer: Tokenizer, tag: str, text: str, shape: str) -> None:
    result = _run(tokenizer, tag, text, scores=True)
    filled = {name for name in ("boxes", "quads", "polygons") if getattr(result, name)}
    assert filled == {shape}
    assert len(result.labels) == len(getattr(result, shape)) == len(result.bins) == len(result.scores or ())
    assert all(0 < score < 0.905 for score in result.scores or ())  # nothing is known of other locations
    assert result.text == text
    assert pickle.loads(pickle.dumps(result)) == result
    assert json.loads(json.dumps(result.to_dict())) == result.to_dict()


def test_scores_need_one_log_probability_per_token(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="need the log-probabilities"):
        _run(tokenizer, "<OD>", TWO_CATS, log_probabilities=None, scores=True)
    with pytest.raises(ValueError, match="one log-probability per token"):
        _run(tokenizer, "<OD>", TWO_CATS, log_probabilities=[-0.1])
    with pytest.raises(ValueError, match="one entry per token"):
        _run(tokenizer, "<OD>", TWO_CATS, location_probabilities=[None])


@settings(max_examples=150, deadline=None, derandomize=True)
@given(tag=st.sampled_from(list(TASKS)), data=st.data(), frame=st.sampled_from([[], [0], [2, 0]]))
def test_any_ids_give_a_result_and_the_frame_makes_no_difference(
    tokenizer: Tokenizer, tag: str, data: st.DataObject, frame: list[int]
) -> None:
    first_location = tokenizer.encode("<loc_0>")[1]
    one = st.one_of(st.integers(0, tokenizer.vocab_size + 5), st.integers(first_location, first_location + 999))
    ids = data.draw(
        st.lists(st.lists(one, min_size=1, max_size=9), max_size=6).map(lambda parts: [index for part in parts for index in part])
    )
    probabilities = [-0.01 * (index % 300) for index in range(len(ids))]
    arguments = {"tokenizer": tokenizer, "image_size": SIZE, "finish_reason": "stop", "scores": True}
    bare = interpret(_prompt(tag), token_ids=ids, log_probabilities=probabilities, **arguments)
    framed = interpret(
        _prompt(tag), token_ids=[*frame, *ids, 2], log_probabilities=[*[-5.0] * len(frame), *probabilities, -5.0], **arguments
    )
    assert bare.to_dict() == framed.to_dict()
    assert bare.to_dict(scores=False) == parse(tag, bare.raw, SIZE)
    assert all(0 < score <= 1 for score in bare.scores or ())


def test_a_folder_is_enough_to_interpret(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(write_tokenizer_json(tmp_path))
    assert _run(tokenizer, "<OD>", "", scores=True).to_dict() == {"<OD>": {"bboxes": [], "labels": [], "scores": []}}


def test_parse_gives_unrounded_middles() -> None:
    assert parse("<OD>", "car<loc_100><loc_200><loc_500><loc_600>", (640, 480), coordinates="float") == {
        "<OD>": {"bboxes": [[100.5 * 640 / 1000, 200.5 * 480 / 1000, 500.5 * 640 / 1000, 600.5 * 480 / 1000]], "labels": ["car"]}
    }
    assert parse("<CAPTION>", "a car", coordinates="float") == {"<CAPTION>": "a car"}
    with pytest.raises(InvalidOption, match="coordinates must be 'int' or 'float'"):
        parse("<OD>", "", (1, 1), coordinates="pixels")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("tag", [*(tag for tag, task in TASKS.items() if task.kind == "text"), "<VQA>", "free text"])
def test_parse_needs_no_size_for_a_text(tag: str) -> None:
    assert parse(tag, "</s><s>a car</s>", None) == parse(tag, "</s><s>a car</s>", (640, 480)) == {tag: "a car"}


@pytest.mark.parametrize("tag", [tag for tag, task in TASKS.items() if task.kind != "text"])
def test_parse_needs_a_size_for_places(tag: str) -> None:
    with pytest.raises(InvalidOption, match=f"{tag} finds places: give image_size") as caught:
        parse(tag, "car<loc_1><loc_2><loc_3><loc_4>")
    assert caught.value.field == "image_size"
