"""Answers where we differ from the reference on purpose, and where no reference can be asked; equality is in tests/parity."""

from __future__ import annotations

import time

import pytest

from florence2.errors import InvalidOption, InvalidPrompt
from florence2.tasks import TASKS, parse
from florence2.tasks.parsing import find_objects

SIZE = (640, 480)
BOX = "<loc_0><loc_0><loc_499><loc_999>"
PIXELS = [0, 0, 319, 479]
LOCATING = [tag for tag, task in TASKS.items() if task.kind != "text"]


@pytest.mark.parametrize("label", ["café naïve", "강아지", "собака", "犬", "naïve 👩\u200d🚀"])
def test_labels_keep_their_characters(label: str) -> None:
    assert parse("<OD>", f"</s><s>{label}{BOX}</s>", SIZE) == {"<OD>": {"bboxes": [PIXELS], "labels": [label]}}
    assert parse("<CAPTION_TO_PHRASE_GROUNDING>", label + BOX, SIZE)["<CAPTION_TO_PHRASE_GROUNDING>"]["labels"] == [label]
    assert parse("<OPEN_VOCABULARY_DETECTION>", label + BOX, SIZE)["<OPEN_VOCABULARY_DETECTION>"]["bboxes_labels"] == [label]


def test_the_list_of_banned_phrases_is_exact_and_for_grounding_alone() -> None:
    text = f"it{BOX}It{BOX} it {BOX}a cat{BOX}"
    grounded = parse("<CAPTION_TO_PHRASE_GROUNDING>", text, SIZE, frozenset({"it"}))
    assert grounded["<CAPTION_TO_PHRASE_GROUNDING>"]["labels"] == ["It", "a cat"]
    assert parse("<OD>", text, SIZE, frozenset({"it"}))["<OD>"]["labels"] == ["it", "It", "it", "a cat"]
    assert len(parse("<CAPTION_TO_PHRASE_GROUNDING>", text, SIZE)["<CAPTION_TO_PHRASE_GROUNDING>"]["labels"]) == 4


@pytest.mark.parametrize("text", ["", "</s><s></s>", "nothing here", "cat<loc_1><loc_2><loc_3>", "<loc_1>", "<", "cat<loc_", "\ud800"])
@pytest.mark.parametrize("tag", LOCATING)
def test_nothing_found_is_an_empty_answer(tag: str, text: str) -> None:
    assert not any(parse(tag, text, SIZE)[tag].values())


def test_locations_that_no_integer_holds_stay_at_the_largest_pixel() -> None:
    text = f"cat<loc_{'9' * 5000}><loc_0><loc_{10**17}><loc_0>"
    assert parse("<OD>", text, SIZE)["<OD>"]["bboxes"] == [[2147483520, 0, 2147483520, 0]]


def test_other_keys_give_the_text() -> None:
    assert parse("<VQA>", f"</s><s> a cat{BOX}<pad></s>", SIZE) == {"<VQA>": f"a cat{BOX}<pad>"}


def test_spans_point_at_label_and_locations() -> None:
    text = "<s> a dog<loc_1><loc_2><loc_3><loc_4></s>"
    (found,) = find_objects("labelled_boxes", text)
    clean = text[3:-4]
    assert clean[slice(*found.label_span)] == found.label == "a dog"
    assert [clean[slice(*span)] for span in found.location_spans] == ["<loc_1>", "<loc_2>", "<loc_3>", "<loc_4>"]


def test_spans_of_quads_and_polygons() -> None:
    quad = "\n STOP " + "".join(f"<loc_{index}>" for index in range(8))
    (found,) = find_objects("quads", quad)
    assert quad[slice(*found.label_span)] == found.label == "STOP"
    outline = "cat<poly><loc_1><loc_2><sep><loc_3><loc_4><loc_5></poly>"
    (found,) = find_objects("boxes_or_polygons", outline)
    assert found.bins == [[1, 2], [3, 4]]
    assert [outline[slice(*span)] for span in found.location_spans] == ["<loc_1>", "<loc_2>", "<loc_3>", "<loc_4>"]


@pytest.mark.parametrize("size", [None, (0, 480), (640,), (640.5, 480)])
def test_sizes_that_are_none_are_refused(size: object) -> None:
    with pytest.raises(InvalidOption, match="image_size"):
        parse("<OD>", "cat" + BOX, size)  # pyright: ignore[reportArgumentType]


def test_texts_are_strings() -> None:
    with pytest.raises(InvalidPrompt, match="text must be a string"):
        parse("<OD>", b"cat", SIZE)  # pyright: ignore[reportArgumentType]


LENGTH = 100_000
HOSTILE = {
    "no bracket": "a" * LENGTH,
    "brackets": "<" * LENGTH,
    "line ends": "\n" * LENGTH,
    "spaces and locations": " \n" * (LENGTH // 2) + BOX,
    "one run": "<loc_1>" * (LENGTH // 7) + "</poly>",
    "runs too short": "a<loc_1><loc_2><loc_3>" * (LENGTH // 22),
    "runs of seven": ("<loc_1>" * 7 + "b") * (LENGTH // 50),
    "a label of many lines": "a\n" * (LENGTH // 2) + "<poly><loc_1></poly>" * (LENGTH // 40),
    "lines of eight": ("\n" + "<loc_1>" * 8) * (LENGTH // 57),
    "digits": "<loc_" + "1" * LENGTH,
    "many digits": ("<loc_" + "9" * 4000 + ">") * (LENGTH // 4006),
    "open outlines": "a<poly>" + "<loc_1><poly>" * (LENGTH // 13),
    "empty outlines": "a" + "<poly></poly>" * (LENGTH // 13),
    "separators": "a<loc_1><sep>" * (LENGTH // 13),
    "sentinels": "<<s>s>" * (LENGTH // 6),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_time_grows_with_length_alone(name: str) -> None:
    began = time.process_time()
    for tag in LOCATING:
        parse(tag, HOSTILE[name], SIZE)
    assert time.process_time() - began < 10, "a linear parser takes a second here, a quadratic one minutes"
