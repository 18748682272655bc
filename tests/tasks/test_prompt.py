"""What a caller may ask, and what the answer is when they may not."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from florence2.errors import InvalidOption, InvalidPrompt, InvalidRegion, UnknownTask
from florence2.tasks import TASKS, build_prompt, expand_prompt, parse_prompt

NEEDS_NOTHING = [tag for tag, task in TASKS.items() if task.needs is None]
NEEDS_TEXT = [tag for tag, task in TASKS.items() if task.needs == "text"]
NEEDS_REGION = [tag for tag, task in TASKS.items() if task.needs == "region"]
LOCATIONS = "<loc_1><loc_2><loc_300><loc_999>"


def test_there_are_fifteen_tasks() -> None:
    assert (len(NEEDS_NOTHING), len(NEEDS_TEXT), len(NEEDS_REGION)) == (8, 3, 4)


def test_a_prompt_carries_key_sentence_and_kind() -> None:
    prompt = build_prompt("<OPEN_VOCABULARY_DETECTION>a cat")
    assert (prompt.task_key, prompt.tag, prompt.kind) == ("<OPEN_VOCABULARY_DETECTION>",) * 2 + ("boxes_or_polygons",)
    assert prompt.sentence == "Locate a cat in the image."


@pytest.mark.parametrize("tag", NEEDS_NOTHING)
def test_whitespace_around_a_tag_is_no_text(tag: str) -> None:
    assert expand_prompt(f" {tag}\n") == TASKS[tag].template


@pytest.mark.parametrize(
    ("prompt", "key"),
    [
        ("describe", "describe>"),
        ("What is in this picture?", "What is in this picture?>"),
        ("a > b", "a >"),
        ("", ">"),
        ("count <loc_1><loc_2>", "count <loc_1>"),
        ("<loc_5> is what?", "<loc_5>"),
        ("<cap>", "<cap>"),
        ("<3 dogs>", "<3 dogs>"),
        ("a < b", "a < b>"),
        ("find <FOO> here", "find <FOO>"),
    ],
)
def test_free_text_passes_under_the_references_key(prompt: str, key: str) -> None:
    built = build_prompt(prompt)
    assert (built.task_key, built.tag, built.sentence, built.kind) == (key, None, prompt, "text")


@pytest.mark.parametrize(
    ("prompt", "closest"),
    [
        ("<FOO>", None),
        ("<od>", "<OD>"),
        ("<caption>", "<CAPTION>"),
        (" <Caption>", "<CAPTION>"),
        ("<DETAIL_CAPTION>", "<DETAILED_CAPTION>"),
        ("<OPEN VOCABULARY DETECTION>cat", "<OPEN_VOCABULARY_DETECTION>"),
        ("<REGION-TO-OCR>" + LOCATIONS, "<REGION_TO_OCR>"),
        ("< OD >", "<OD>"),
        ("<OD", "<OD>"),
        ("<VQA>What is it?", None),
    ],
)
def test_unknown_tags_are_refused_with_the_closest(prompt: str, closest: str | None) -> None:
    with pytest.raises(UnknownTask) as caught:
        build_prompt(prompt)
    assert caught.value.field == "prompt"
    assert all(tag in caught.value.message for tag in TASKS)
    assert ("did you mean" in caught.value.message) == (closest is not None)
    assert closest is None or f"did you mean {closest}?" in caught.value.message


@pytest.mark.parametrize(
    ("prompt", "meant"),
    [
        *(
            (written, "<OD>")
            for written in ("OD", "od", " Od ", "[OD]", "{OD}", '"OD"', "'od'", "`OD`", "OD>", "OD.", "</OD>", "<OD/>", "<<OD")
        ),
        *(
            (written, "<OD>")
            for written in ("&lt;OD&gt;", "&#60;od&#x3e;", "&amp;lt;OD&amp;gt;", "%3COD%3E", "\\u003cOD\\u003e", "\uff1cOD\uff1e")
        ),
        ("caption", "<CAPTION>"),
        ("More detailed caption", "<MORE_DETAILED_CAPTION>"),
        ("OCR-WITH-REGION", "<OCR_WITH_REGION>"),
        ("REGION_PROPOSAL", "<REGION_PROPOSAL>"),
        ("OPEN_VOCABULARY_DETECTION a cat", "<OPEN_VOCABULARY_DETECTION>"),
        ("OPEN_VOCABULARY_DETECTION>a cat", "<OPEN_VOCABULARY_DETECTION>"),
        ("&lt;OPEN_VOCABULARY_DETECTION&gt;a cat", "<OPEN_VOCABULARY_DETECTION>"),
        ("&lt;caption_to_phrase_grounding&gt;a cat", "<CAPTION_TO_PHRASE_GROUNDING>"),
        ("REGION_TO_OCR" + LOCATIONS, "<REGION_TO_OCR>"),
    ],
)
def test_tags_that_lost_their_brackets_on_the_way_are_refused(prompt: str, meant: str) -> None:
    with pytest.raises(UnknownTask, match=f"did you mean {meant}\\?.*allow_unknown_tag") as caught:
        build_prompt(prompt)
    assert caught.value.field == "prompt"
    assert len(caught.value.message) < 500
    assert build_prompt(prompt, allow_unknown_tag=True).sentence == prompt


def test_every_message_about_a_tag_fits_a_line() -> None:
    for prompt in ("<FOO>", "<od>", "<" + "x" * 5000 + ">", "<open vocabulary detections>", "&lt;OD&gt;" + "x" * 5000):
        with pytest.raises(UnknownTask) as caught:
            build_prompt(prompt)
        assert len(caught.value.message) < 488  # behind "florence2: "


@pytest.mark.parametrize("additions", [{"text": "a cat"}, {"region": LOCATIONS}])
def test_a_bare_name_with_text_or_region_beside_it_is_told_its_tag(additions: dict[str, str]) -> None:
    with pytest.raises(UnknownTask, match="did you mean <REGION_TO_OCR>"):
        build_prompt("REGION_TO_OCR", **additions)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "prompt",
    [
        "a caption",
        "caption this image",
        "read the OCR",
        "OD on the table",
        "100% OD",
        "AT&T",
        "5 &lt; 6",
        "what is %3C",
        "_",
        "od od",
        "captions",
    ],
)
def test_words_of_tags_in_a_free_text_are_words(prompt: str) -> None:
    assert build_prompt(prompt).sentence == prompt


def test_a_fine_tunes_own_tag_passes_on_request() -> None:
    built = build_prompt("<VQA>What is it?", allow_unknown_tag=True)
    assert (built.task_key, built.sentence) == ("<VQA>", "<VQA>What is it?")
    assert expand_prompt("<OD>", allow_unknown_tag=True) == TASKS["<OD>"].template


@pytest.mark.parametrize("tag", NEEDS_NOTHING)
@pytest.mark.parametrize("change", ["{}cat", "{} extra", "find {} here", "{0}{0}"])
def test_a_tag_that_takes_nothing_stands_alone(tag: str, change: str) -> None:
    with pytest.raises(InvalidPrompt, match="takes no text"):
        build_prompt(change.format(tag))
    with pytest.raises(InvalidPrompt, match="takes no text"):
        build_prompt(tag, text="cat")
    with pytest.raises(InvalidPrompt, match="takes no region"):
        build_prompt(tag, region=LOCATIONS)


@pytest.mark.parametrize("tag", NEEDS_TEXT)
def test_missing_and_double_text(tag: str) -> None:
    for text in (None, "", "  \n"):
        with pytest.raises(InvalidPrompt, match="needs a text") as caught:
            build_prompt(tag, text=text)
        assert caught.value.field == "text"
    with pytest.raises(InvalidPrompt, match="another in text="):
        build_prompt(tag + "a cat", text="a dog")
    with pytest.raises(InvalidPrompt, match="no region"):
        build_prompt(tag + "a cat", region=LOCATIONS)


@pytest.mark.parametrize("tag", NEEDS_REGION)
def test_missing_and_double_region(tag: str) -> None:
    for region in (None, "", " "):
        with pytest.raises(InvalidPrompt, match="needs a region") as caught:
            build_prompt(tag, region=region)
        assert caught.value.field == "region"
    with pytest.raises(InvalidPrompt, match="another in region="):
        build_prompt(tag + LOCATIONS, region=LOCATIONS)
    with pytest.raises(InvalidPrompt, match="no text"):
        build_prompt(tag, text=LOCATIONS)


def test_two_tasks_in_one_prompt_are_refused() -> None:
    with pytest.raises(InvalidPrompt, match="one task tag"):
        build_prompt("<OD><CAPTION>")
    with pytest.raises(InvalidPrompt, match="must not hold a task tag"):
        build_prompt("<OPEN_VOCABULARY_DETECTION>", text="a <OD>")


def test_text_and_region_go_with_a_tag_alone() -> None:
    with pytest.raises(InvalidPrompt, match="goes with a task tag"):
        build_prompt("describe", text="this")
    with pytest.raises(InvalidPrompt, match="goes with a task tag"):
        build_prompt("describe", region=LOCATIONS)


@pytest.mark.parametrize("token", ["<s>", "</s>", "<pad>", "<image>"])
def test_tokens_that_frame_the_input_are_refused(token: str) -> None:
    for prompt, text in ((f"a {token}", None), ("<OPEN_VOCABULARY_DETECTION>", f"a {token}")):
        with pytest.raises(InvalidPrompt, match="frames the model's input"):
            build_prompt(prompt, text=text)


@pytest.mark.parametrize("value", [None, 3, b"<OD>", ["<OD>"]])
def test_prompts_are_strings(value: object) -> None:
    with pytest.raises(InvalidPrompt, match="must be a string"):
        build_prompt(value)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidPrompt, match="surrogate"):
        build_prompt("half \ud800")


@pytest.mark.parametrize(
    ("region", "tokens"),
    [
        ((0, 0, 640, 480), "<loc_0><loc_0><loc_999><loc_999>"),
        ([64, 48.0, 320.0, 240], "<loc_100><loc_100><loc_500><loc_500>"),
        (np.array([0.6399, 0, 0.65, 0]), "<loc_0><loc_0><loc_1><loc_0>"),
        (np.array([64, 48, 64, 48], dtype=np.int32), "<loc_100><loc_100><loc_100><loc_100>"),
        ((0.1, 0.2, 0.9, 0.9), "<loc_0><loc_0><loc_1><loc_1>"),
    ],
)
def test_pixels_become_bins(region: tuple, tokens: str) -> None:
    assert expand_prompt("<REGION_TO_CATEGORY>", region=region, image_size=(640, 480)) == f"What is the region {tokens}?"


@pytest.mark.parametrize(
    "region",
    [
        (1, 2, 3),
        (1, 2, 3, 4, 5),
        (300, 0, 200, 100),
        (0, 200, 10, 100),
        (0, 0, 641, 10),
        (0, 0, 10, 481.5),
        (-1, 0, 10, 10),
        (0, 0, float("nan"), 10),
        (0, 0, float("inf"), 10),
        (0, 0, "5", 10),
        (0, 0, None, 10),
        (True, 0, 5, 5),
        ("<loc_1>", "<loc_2>", 3, 4),
        5,
        "1,2,3,4",
        "<loc_1><loc_2><loc_3>",
        "<loc_1><loc_2><loc_3><loc_1000>",
        "<loc_1><loc_2><loc_3><loc_04>",
        "<loc_1> <loc_2> <loc_3> <loc_4>",
        "<loc_1><loc_2><loc_3><loc_4><loc_5>",
        "the dog",
    ],
)
def test_what_is_no_region_is_refused(region: object) -> None:
    with pytest.raises(InvalidRegion, match="x1, y1, x2, y2") as caught:
        build_prompt("<REGION_TO_OCR>", region=region, image_size=(640, 480))  # pyright: ignore[reportArgumentType]
    assert caught.value.field == "region"


def test_a_region_in_pixels_needs_the_images_size() -> None:
    with pytest.raises(InvalidRegion, match="image's size"):
        build_prompt("<REGION_TO_OCR>", region=(1, 2, 3, 4))
    with pytest.raises(InvalidOption, match="image_size"):
        build_prompt("<REGION_TO_OCR>", region=(1, 2, 3, 4), image_size=(0, 10))


def test_a_prompt_is_parsed_before_its_image_is_there() -> None:
    parsed = parse_prompt("<REGION_TO_CATEGORY>", region=(64, 48, 320, 240))
    assert parsed.region == (64, 48, 320, 240)
    for size, tokens in (((640, 480), "<loc_100><loc_100><loc_500><loc_500>"), ((320, 240), "<loc_200><loc_200><loc_999><loc_999>")):
        bound = parsed.bind(size)
        assert bound == build_prompt("<REGION_TO_CATEGORY>", region=(64, 48, 320, 240), image_size=size)
        assert (bound.region, bound.argument, bound.sentence) == (None, tokens, f"What is the region {tokens}?")
        assert bound.bind((1, 1)) is bound
    with pytest.raises(InvalidRegion, match="inside its image of 319 x 480 pixels"):
        parsed.bind((319, 480))
    with pytest.raises(InvalidOption, match="image_size"):
        parsed.bind((0, 10))


@pytest.mark.parametrize("prompt", ["<OD>", "<OPEN_VOCABULARY_DETECTION>a cat", "<REGION_TO_OCR>" + LOCATIONS, "a free text", ""])
def test_other_prompts_fit_every_image(prompt: str) -> None:
    parsed = parse_prompt(prompt)
    assert parsed.bind((7, 9)) is parsed
    assert parsed == build_prompt(prompt)
    assert parsed.inline == prompt


def test_a_prompt_in_one_string_has_its_text_or_region_behind_the_tag() -> None:
    assert parse_prompt("<CAPTION_TO_PHRASE_GROUNDING>", text=" a cat ").inline == "<CAPTION_TO_PHRASE_GROUNDING>a cat"
    assert parse_prompt("<REGION_TO_OCR>", region=LOCATIONS).inline == "<REGION_TO_OCR>" + LOCATIONS
    bound = parse_prompt("<REGION_TO_OCR>", region=(0, 0, 5, 10)).bind((10, 10))
    assert bound.inline == "<REGION_TO_OCR><loc_0><loc_0><loc_500><loc_999>"
    assert parse_prompt(bound.inline) == bound


@pytest.mark.parametrize("region", [(-1, 0, 10, 10), (0, -1.0, 10, 10), (11, 0, 10, 10), (0, 10, 10, 8.5), (0, 0, 1), "nothing"])
def test_what_is_no_region_of_any_image_is_refused_without_one(region: Any) -> None:
    with pytest.raises(InvalidRegion, match="a region is"):
        parse_prompt("<REGION_TO_OCR>", region=region)


@given(
    region=st.tuples(*[st.floats(-3, 30) | st.integers(-3, 30)] * 4),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
)
def test_what_is_refused_without_an_image_is_refused_with_every_image(region: tuple, size: tuple[int, int]) -> None:
    try:
        parse_prompt("<REGION_TO_OCR>", region=region)
    except InvalidRegion:
        with pytest.raises(InvalidRegion):
            _bound_before(region, size)


def _bound_before(region: tuple, size: tuple[int, int]) -> None:
    """The rule for one image, written out."""
    edges = [min(max(value, 0), side) for value, side in zip(region, size * 2, strict=True)]
    edged = [edge if abs(value - edge) < 1 else value for value, edge in zip(region, edges, strict=True)]
    if not (0 <= edged[0] <= edged[2] <= size[0] and 0 <= edged[1] <= edged[3] <= size[1]):
        raise InvalidRegion("outside")


def test_the_room_needs_neither_torch_nor_tokenizers() -> None:
    code = "import sys, florence2.tasks; print(sorted({'torch', 'tokenizers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize(
    "kind", [np.array, torch.tensor, lambda values: [np.int64(value) for value in values], lambda values: map(np.float32, values)]
)
def test_regions_are_numbers_of_any_library(kind: Any) -> None:
    built = build_prompt("<REGION_TO_CATEGORY>", region=kind([10, 20, 30, 40]), image_size=(100, 100))
    assert built.argument == "<loc_100><loc_200><loc_300><loc_400>"


@pytest.mark.parametrize(
    ("region", "tokens"),
    [
        ((-0.4, -0.99, 640.4, 480.99), "<loc_0><loc_0><loc_999><loc_999>"),
        ((-1e-9, 0, 640.0000001, 480), "<loc_0><loc_0><loc_999><loc_999>"),
        ((320, 240, 640.5, 480), "<loc_500><loc_500><loc_999><loc_999>"),
        ((640.2, 10, 640.8, 480), "<loc_999><loc_20><loc_999><loc_999>"),
    ],
)
def test_a_fraction_of_a_pixel_outside_is_the_edge(region: tuple, tokens: str) -> None:
    assert expand_prompt("<REGION_TO_CATEGORY>", region=region, image_size=(640, 480)) == f"What is the region {tokens}?"


@pytest.mark.parametrize(
    "region", [(-1, 0, 10, 10), (0, -1.0, 10, 10), (0, 0, 641, 10), (0, 0, 10, 481), (0, 0, 640.5, 481.2), (0.9, 0, -0.5, 10)]
)
def test_a_pixel_outside_is_refused(region: tuple) -> None:
    with pytest.raises(InvalidRegion):
        build_prompt("<REGION_TO_CATEGORY>", region=region, image_size=(640, 480))


@pytest.mark.parametrize("region", [[0, 0, 10**400, 10], b"abcd", {1, 2, 3, 4}, frozenset((1, 2, 3, 4))])
def test_what_has_no_order_or_no_measure_is_no_region(region: Any) -> None:
    with pytest.raises(InvalidRegion, match="four numbers"):
        parse_prompt("<REGION_TO_OCR>", region=region)
