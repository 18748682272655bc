"""Our answers against the reference's post-processor, on texts that models write and on texts that none would."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from florence2.tasks import TASKS, parse
from florence2.tasks.coordinates import dequantize, quantize
from tests.parity.florence2_processor import BANNED, reference_processor

REFERENCE = reference_processor()
NUM_TEXTS = 60
LOCATING = [tag for tag, task in TASKS.items() if task.kind != "text"]

_sizes = st.tuples(st.integers(1, 5000), st.integers(1, 5000))
_location = st.one_of(st.integers(0, 999), st.integers(1000, 2000)).map(lambda number: f"<loc_{number}>")
_locations = st.integers(0, 19).flatmap(lambda count: st.lists(_location, min_size=count, max_size=count)).map("".join)
_token = st.sampled_from(
    ["<sep>", "<poly>", "</poly>", "<and>", "<s>", "</s>", "<pad>", "<od>", "</od>", "<ground>", "<obj>", "<box>", "<cap>"]
)
_junk = st.sampled_from(["<", ">", "<loc_", "<loc_>", "loc_4>", "<loc_5", "<loc_-1>", "<loc_007>", "<<s>s>", "\n", " ", "\r\n", "\x1c"])
_word = st.sampled_from(["cat", " a dog ", "it", "the image", "a", "2 > 1", "red\ncar", "\n\nleaf", "It's", "  "])
_ascii = st.text(st.characters(max_codepoint=127), max_size=8)
_texts = st.lists(st.one_of(_word, _locations, _locations, _token, _token, _junk, _ascii), max_size=14).map("".join)


def _expected(tag: str, text: str, size: tuple[int, int]) -> dict:
    return REFERENCE.post_process_generation(text=text, task=tag, image_size=size)


@pytest.mark.parametrize("tag", LOCATING)
@settings(max_examples=NUM_TEXTS, deadline=None, derandomize=True)
@given(text=_texts, size=_sizes)
@example(text="</s><s>cat<loc_1><loc_2><loc_3><loc_4></s>", size=(640, 480))
@example(text="<loc_1><sep><loc_2><sep>", size=(640, 480))
@example(text="cat<poly><loc_1><loc_2><sep><loc_3></poly><poly><loc_4><loc_5><loc_6><loc_7></poly>", size=(640, 480))
@example(text="\n<loc_1><loc_2><loc_3><loc_4><loc_5><loc_6><loc_7><loc_8><loc_9>", size=(640, 480))
@example(text="<loc_4>dog<loc_1><loc_2><loc_3><loc_4>", size=(1, 1))
def test_ascii_texts_give_the_references_answer(tag: str, text: str, size: tuple[int, int]) -> None:
    assert parse(tag, text, size, BANNED) == _expected(tag, text, size)


_PIECES = [
    "cat",
    "a big dog",
    "<loc_{}>",
    "<loc_{}><loc_{}><loc_{}><loc_{}>",
    "<sep>",
    "<poly>",
    "</poly>",
    "<s>",
    "</s>",
    "\n",
    "<",
    ">",
    " ",
]
_WEIGHTS = (6, 3, 6, 12, 3, 4, 4, 1, 1, 1, 1, 1, 2)


def test_four_thousand_drawn_texts_give_the_references_answer() -> None:
    draw = random.Random(7)
    num_objects = 0
    for number in range(4000):
        pieces = draw.choices(_PIECES, _WEIGHTS, k=draw.randrange(1, 12))
        text = re.sub(r"\{\}", lambda _: str(draw.randrange(1000)), "".join(pieces))
        tag, size = LOCATING[number % len(LOCATING)], (draw.randrange(1, 4000), draw.randrange(1, 4000))
        answer = parse(tag, text, size, BANNED)
        assert answer == _expected(tag, text, size), (tag, text, size)
        num_objects += sum(map(len, answer[tag].values()))
    assert num_objects > 2000, "the drawn texts must hold enough objects to compare"


_foreign = st.one_of(st.text(max_size=6), st.sampled_from(["<loc_٣>", "\u2028", "\xa0"]))
_wild = st.lists(st.one_of(_foreign, _word, _locations, _locations, _token, _junk), max_size=14).map("".join)


@pytest.mark.slow
@pytest.mark.parametrize("tag", LOCATING)
@settings(max_examples=NUM_TEXTS, deadline=None, derandomize=True)
@given(text=_wild, size=_sizes)
@example(text="café naïve<loc_1><loc_2><loc_3><loc_4>", size=(640, 480))
@example(text="개<loc_1><loc_2><loc_3><loc_4><loc_5><loc_6><loc_7><loc_8>", size=(640, 480))
def test_other_texts_differ_in_kept_characters_alone(tag: str, text: str, size: tuple[int, int]) -> None:
    ours, expected = parse(tag, text, size, BANNED), _expected(tag, text, size)
    assert {name: _as_reference(tag, name, value) for name, value in ours[tag].items()} == expected[tag]


def _as_reference(tag: str, name: str, values: list) -> list:
    """What the reference makes of our labels: it drops characters from those of boxes, and from no others."""
    if name not in ("labels", "bboxes_labels") or TASKS[tag].kind in ("quads", "polygons"):
        return values
    return [label.encode("ascii", "ignore").decode("ascii") for label in values]


@pytest.mark.parametrize("tag", ["<CAPTION>", "<REGION_TO_OCR>", "<VQA>", "describe", ""])
@settings(max_examples=40, deadline=None, derandomize=True)
@given(text=_wild)
def test_text_answers_are_the_references_whatever_they_hold(tag: str, text: str) -> None:
    assert parse(tag, text, (640, 480)) == _expected(tag, text, (640, 480))


def _sizes_to_try() -> list[int]:
    draw = random.Random(3)
    return sorted(
        {1, 2, 3, 7, 224, 480, 640, 768, 999, 1000, 1001, 1080, 1920, 3024, 4032, 65535} | {draw.randrange(1, 12000) for _ in range(240)}
    )


def test_every_bin_gives_the_references_pixel() -> None:
    bins = list(range(1000))
    pairs = torch.tensor([[index, index] for index in bins])
    for size in _sizes_to_try():
        expected = REFERENCE.post_processor.dequantize(pairs, (size, size + 1))
        ours = np.array([dequantize(bins, (size, size)), dequantize(bins, (size + 1, size + 1))]).T
        assert np.array_equal(ours, expected.numpy()), size


def test_every_whole_pixel_and_many_broken_ones_give_the_references_bin() -> None:
    draw = random.Random(5)
    for size in _sizes_to_try():
        pixels = [*range(0, size, max(1, size // 500)), size, *(draw.uniform(-5, size + 5) for _ in range(200))]
        expected = REFERENCE.post_processor.quantize(torch.tensor([[value, value] for value in pixels]), (size, size + 1))
        ours = np.array([quantize(pixels, (size, size)), quantize(pixels, (size + 1, size + 1))]).T
        assert np.array_equal(ours, expected.numpy()), size
