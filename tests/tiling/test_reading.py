"""Texts of tiles: words at seams come back whole and once, in the order in which they are read."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from string import ascii_letters

import pytest
from hypothesis import given
from hypothesis import strategies as st

from florence2.results import FoundObject, Result
from florence2.tiling.merging import merge
from florence2.tiling.reading import lines_of
from florence2.tiling.tiles import Tiles
from tests.tiling.observer import Thing, letters, result_of

SIZE = (1000, 800)
OCR = "<OCR_WITH_REGION>"
SENTENCE = "the quick brown fox jumps over the lazy dog"


def read(words: Sequence[Thing], tiles: Tiles) -> Result:
    """What a perfect reader reads in tiles."""
    boxes = tiles.boxes(SIZE)
    return merge([result_of([part for word in words if (part := letters(word, box))], box, OCR) for box in boxes], boxes, SIZE)


def piece(label: str, left: float, top: float, width: float = 50, height: float = 20, degrees: float = 0) -> FoundObject:
    """A piece of text, turned about the picture's upper left corner."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = ((left, top), (left + width, top), (left + width, top + height), (left, top + height))
    quad = [value for x, y in corners for value in (x * cos - y * sin, x * sin + y * cos)]
    return FoundObject(label, (min(quad[::2]), min(quad[1::2]), max(quad[::2]), max(quad[1::2])), tuple(quad))  # type: ignore[arg-type]


@given(
    tiles=st.builds(Tiles, st.sampled_from(["2x2", "3x3", 400]), st.just(0.3), includes_whole=st.booleans()),
    rows=st.lists(st.tuples(st.integers(0, 39), st.integers(20, 700)), max_size=6, unique_by=lambda row: row[0]),
)
def test_words_come_back_once_in_reading_order(tiles: Tiles, rows: list[tuple[int, int]]) -> None:
    words = [Thing(f"word{row:02}", (left, row * 20 + 1, left + 90, row * 20 + 17)) for row, left in sorted(rows)]
    result = read(words, tiles)
    assert result.labels == [word.label for word in words]
    assert len(result.quads) == len(words)


@pytest.mark.parametrize("cut", ["2x1", "3x1", "4x1", "3x2"])
@pytest.mark.parametrize("overlap", [0.15, 0.2, 0.3])
def test_a_line_longer_than_a_tile_is_joined_by_its_letters(cut: str, overlap: float) -> None:
    result = read([Thing(SENTENCE, (10, 310, 990, 345))], Tiles(cut, overlap, includes_whole=False))
    assert result.labels == [SENTENCE]
    assert result.objects[0].box == pytest.approx((10, 310, 990, 345), abs=3)


@given(left=st.integers(0, 500), length=st.integers(150, 480), num_letters=st.integers(8, 40))
def test_what_is_joined_is_what_stands_there(left: int, length: int, num_letters: int) -> None:
    """Of letters that differ; where letters repeat, a part may be joined at another of their places."""
    text = ascii_letters[:num_letters]
    result = read([Thing(text, (left, 100, left + length, 130))], Tiles("2x1", 0.3, includes_whole=False))
    assert result.labels == [text]


def test_misread_letters_at_the_cut_do_no_harm() -> None:
    boxes = Tiles("2x1", 0.3, includes_whole=False).boxes(SIZE)  # 0..589, 411..1000
    left, right = Thing("HELLO WORI", (200, 100, 589, 140)), Thing("|WORLD", (0, 100, 229, 140))
    assert merge([result_of([left], boxes[0], OCR), result_of([right], boxes[1], OCR)], boxes, SIZE).labels == ["HELLO WORLD"]


def test_parts_that_share_no_letters_are_both_kept() -> None:
    boxes = Tiles("2x1", 0.2, includes_whole=False).boxes(SIZE)
    left, right = Thing("abcdefgh", (100, 100, 556, 140)), Thing("stuvwxyz", (0, 100, 356, 140))
    merged = merge([result_of([left], boxes[0], OCR), result_of([right], boxes[1], OCR)], boxes, SIZE)
    assert merged.labels == ["abcdefgh", "stuvwxyz"]


def test_a_line_of_the_whole_picture_gives_way_to_its_words_seen_closer() -> None:
    boxes = Tiles("2x1", 0.2).boxes(SIZE)
    words = [Thing("quick", (100, 100, 190, 130)), Thing("brown", (200, 100, 300, 130))]
    line = Thing("qvick bnown", (100, 100, 300, 130))
    results = [result_of([line], boxes[0], OCR), result_of(words, boxes[1], OCR), result_of([], boxes[2], OCR)]
    assert merge(results, boxes, SIZE).labels == ["quick", "brown"]
    results[1] = result_of(words[:1], boxes[1], OCR)
    assert merge(results, boxes, SIZE).labels == ["qvick bnown"]  # the tile has read less than half of it


def test_plain_text_is_written_line_by_line() -> None:
    boxes = Tiles("2x1", 0.2).boxes(SIZE)
    words = [Thing("brown", (200, 103, 300, 130)), Thing("fox", (100, 150, 190, 175)), Thing("quick", (100, 100, 190, 130))]
    results = [result_of([], boxes[0], OCR), result_of(words, boxes[1], OCR), result_of([], boxes[2], OCR)]
    merged = merge(results, boxes, SIZE, task="<OCR>")
    assert (merged.task, merged.kind, merged.text) == ("<OCR>", "text", "quick brown\nfox")
    assert merged.to_dict(coordinates="float") == {"<OCR>": "quick brown\nfox"}
    assert merged.objects == ()
    assert merge([result_of([], box, OCR) for box in boxes], boxes, SIZE, task="<OCR>").text == ""


@pytest.mark.parametrize("degrees", [0, 8, -8, 25, -25])
def test_lines_of_a_page_that_slopes(degrees: float) -> None:
    pieces = [piece(f"{row}{column}", 10 + 130 * column, 20 + 30 * row, 100, degrees=degrees) for row in range(5) for column in range(6)]
    random.Random(3).shuffle(pieces)
    lines = [[one.label for one in line] for line in lines_of(pieces)]
    assert lines == [[f"{row}{column}" for column in range(6)] for row in range(5)]


def test_words_of_different_height_share_a_line_and_a_headline_does_not() -> None:
    pieces = [piece("body", 10, 100, height=20), piece("low", 70, 105, height=14), piece("upright", 300, 60, width=20, height=120)]
    assert [[one.label for one in line] for line in lines_of(pieces)] == [["body", "low"], ["upright"]]


def test_a_text_on_its_side_does_not_turn_the_page() -> None:
    pieces = [piece("first", 10, 100), piece("second", 10, 140), piece("side", 105, -400, 200, degrees=90)]
    lines = [[one.label for one in line] for line in lines_of(pieces)]
    assert [line for line in lines if line != ["side"]] == [["first"], ["second"]]


@pytest.mark.slow
def test_thousands_of_words_do_not_hold_up_the_engine() -> None:
    boxes = Tiles("8x8").boxes((8000, 8000))
    chance = random.Random(1)
    results = []
    for box in boxes:
        places = [(chance.uniform(0, 1080), chance.uniform(0, 1150)) for _ in range(60)]
        results.append(result_of([Thing(f"w{index}", (x, y, x + 60, y + 15)) for index, (x, y) in enumerate(places)], box, OCR))
    started = time.process_time()
    assert merge(results, boxes, (8000, 8000), task="<OCR>").text
    assert time.process_time() - started < 20
