"""One result of those of all tiles: of a model that sees perfectly, every object comes back once, wherever seams are."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from florence2.results import Result, Usage
from florence2.tasks.answer import parse
from florence2.tiling.merging import merge
from florence2.tiling.tiles import Tiles
from tests.tiling.observer import Thing, observe, result_of

SIZE = (1000, 800)
LABELS = ("car", "dog")
TILES = st.builds(
    Tiles, st.sampled_from(["2x2", "3x2", "4x4", 400, 250]), st.sampled_from([0.2, 0.3, 0.5]), includes_whole=st.sampled_from([True, False])
)


def things_up_to(side: int) -> st.SearchStrategy[list[Thing]]:
    """Objects of at most so many pixels that do not touch each other."""

    @st.composite
    def drawn(draw: st.DrawFn) -> list[Thing]:
        things: list[Thing] = []
        for _ in range(draw(st.integers(0, 8))):
            width, height = draw(st.integers(12, side)), draw(st.integers(12, side))
            left, top = draw(st.integers(0, SIZE[0] - width)), draw(st.integers(0, SIZE[1] - height))
            thing = Thing(draw(st.sampled_from(LABELS)), (left, top, left + width, top + height))
            if not any(touch(thing, other) for other in things):
                things.append(thing)
        return things

    return drawn()


def touch(first: Thing, second: Thing) -> bool:
    one, two = first.box, second.box
    return one[0] - 8 < two[2] and two[0] - 8 < one[2] and one[1] - 8 < two[3] and two[1] - 8 < one[3]


def assert_same(result: Result, things: list[Thing], tolerance: float) -> None:
    """The objects are these, each once."""
    found = [Thing(one.label, one.box) for one in result.objects]
    assert len(found) == len(things), (found, things)
    for thing in things:
        assert any(one.label == thing.label and np.abs(np.subtract(one.box, thing.box)).max() <= tolerance for one in found), (found, thing)


@given(tiles=TILES, things=things_up_to(44), min_share=st.sampled_from([0.0, 0.3, 0.6]))
def test_objects_smaller_than_the_overlap_come_back_once_and_whole(tiles: Tiles, things: list[Thing], min_share: float) -> None:
    """The smallest overlap here is 0.2 of 250 pixels; 1 % of the tile on either side counts as its edge."""
    boxes = tiles.boxes(SIZE)
    merged = merge(observe(things, boxes, min_share=min_share), boxes, SIZE)
    assert_same(merged, things, tolerance=2)
    assert [box[1] for box in merged.boxes] == sorted(box[1] for box in merged.boxes)


@given(tiles=TILES, things=things_up_to(500))
def test_objects_across_seams_come_back_once(tiles: Tiles, things: list[Thing]) -> None:
    boxes = tiles.boxes(SIZE)
    assert_same(merge(observe(things, boxes), boxes, SIZE), things, tolerance=3)


@given(tiles=TILES, things=things_up_to(300), seed=st.integers(0, 99))
def test_the_order_of_tiles_and_objects_does_not_count(tiles: Tiles, things: list[Thing], seed: int) -> None:
    boxes = tiles.boxes(SIZE)
    pairs = list(zip(observe(things, boxes), boxes, strict=True))
    expected = merge(*map(list, zip(*pairs, strict=True)), SIZE)  # type: ignore[arg-type]
    chance = random.Random(seed)
    shuffled = [(result_of(chance.sample(shown := shown_in(result), len(shown)), box), box) for result, box in pairs]
    chance.shuffle(shuffled)
    other = merge(*map(list, zip(*shuffled, strict=True)), SIZE)  # type: ignore[arg-type]
    assert (other.labels, other.boxes, other.text) == (expected.labels, expected.boxes, expected.text)


def shown_in(result: Result) -> list[Thing]:
    return [Thing(one.label, one.unrounded(bins, result.image_size).box) for one, bins in zip(result.objects, result.bins, strict=True)]


@given(things=things_up_to(400))
def test_what_one_tile_shows_twice_are_two_objects(things: list[Thing]) -> None:
    """Nothing is merged that the model has told apart: here every object has a smaller one of its label in it."""
    nested = [Thing(thing.label, tuple(np.add(thing.box, (2, 2, -2, -2)).tolist())) for thing in things]
    (tile, *_) = boxes = [(0, 0, *SIZE), (0, 0, 200, 800)]
    results = [result_of([*things, *nested], tile), result_of([], boxes[1])]
    assert_same(merge(results, boxes, SIZE), [*things, *nested], tolerance=2)


def test_one_result_about_the_whole_picture_stays_as_it_is() -> None:
    result = result_of([Thing("car", (1, 2, 30, 40))], (0, 0, *SIZE))
    assert merge([result], [(0, 0, *SIZE)], SIZE) is result


def test_coordinates_are_finer_than_those_of_the_whole_picture() -> None:
    boxes = Tiles("2x2", 0.2).boxes((4000, 4000))
    thing = Thing("car", (100.5, 3000.5, 140.5, 3050.5))
    merged = merge(observe([thing], boxes), boxes, (4000, 4000))
    assert np.abs(np.subtract(merged.boxes[0], thing.box)).max() < 2.3
    assert np.abs(np.subtract(merged.to_dict(coordinates="float")["<OD>"]["bboxes"][0], thing.box)).max() < 2222.5 / 1000
    assert merged.bins[0][0] == pytest.approx(100.5 * 1000 / 4000 - 0.5, abs=0.6)
    assert parse("<OD>", merged.text, (4000, 4000))["<OD>"]["labels"] == ["car"]


def test_scores_and_what_the_answer_took() -> None:
    boxes = Tiles("2x1", 0.2).boxes(SIZE)  # the whole picture, 0..556, 444..1000
    thing = Thing("car", (480, 100, 520, 140))
    results = observe([thing], boxes)
    usage = [Usage(590, 577, 3, True), Usage(590, 577, 3, False), Usage(590, 577, 4, True)]
    parts = [
        replace(result, scores=[score], label_scores=[score], location_scores=[0.5], usage=used, finish_reason=reason)
        for result, score, used, reason in zip(results, (0.9, 0.4, 0.6), usage, ("stop", "length", "stop"), strict=True)
    ]
    merged = merge(parts, boxes, SIZE)
    assert merged.scores == [0.9]
    assert merged.boxes == [[479, 100, 519, 140]]
    assert merged.usage == Usage(1770, 1731, 10, False)
    assert merged.finish_reason == "length"
    assert merged.raw.splitlines() == ["<s>1</s>"] * 3
    assert merged.token_ids == [0, 1, 2] * 3
    assert merged.log_probability == -3.0
    assert len(merged.log_probabilities or ()) == 9
    assert merge(results, boxes, SIZE).scores is None


def test_a_part_that_looks_like_something_else_is_dropped() -> None:
    boxes = Tiles("2x1", 0.2, includes_whole=False).boxes(SIZE)
    whole = [Thing("car", (6, 100, 186, 180))]  # of the right tile: 450..630
    part = [Thing("bus", (6 + 444, 100, 556, 180))]  # of the left one, which cuts it
    assert merge([result_of(part, boxes[0]), result_of(whole, boxes[1])], boxes, SIZE).labels == ["car"]
    asked = [replace(result_of(part, boxes[0]), task="<OPEN_VOCABULARY_DETECTION>", kind="boxes_or_polygons") for part in (part, whole)]
    assert len(merge(asked, [boxes[0], boxes[0]], SIZE).labels) == 2


def test_a_cut_view_that_its_neighbour_does_not_confirm_is_dropped() -> None:
    boxes = Tiles("2x1", 0.2, includes_whole=False).boxes(SIZE)
    cut, long = Thing("car", (460, 100, 556, 150)), Thing("road", (100, 300, 556, 400))
    merged = merge([result_of([cut, long], boxes[0]), result_of([], boxes[1])], boxes, SIZE)
    assert merged.labels == ["road"]


def test_what_fills_its_tile_is_dropped_where_the_whole_picture_is_asked_about() -> None:
    for includes_whole, labels in ((True, []), (False, ["cat"])):
        boxes = Tiles("2x2", 0.2, includes_whole=includes_whole).boxes(SIZE)
        results = [result_of([], box) for box in boxes]
        results[-1] = result_of([Thing("cat", (0, 0, 556, 445))], boxes[-1])
        assert merge(results, boxes, SIZE).labels == labels


def test_captions_of_regions_are_compared_by_place() -> None:
    boxes = Tiles("2x1", 0.2).boxes(SIZE)
    names = ("a red car", "red car on a road", "car")
    results = [
        replace(result_of([Thing(name, tuple(np.subtract((480, 100, 520, 140), box[:2] * 2)))], box), task="<DENSE_REGION_CAPTION>")
        for name, box in zip(names, boxes, strict=True)
    ]
    assert merge(results, boxes, SIZE).labels == ["red car on a road"]


def polygon_result(outlines: list[list[float]], size: tuple[int, int]) -> Result:
    """An answer of open vocabulary that holds polygons."""
    bins: list[Any] = [[[round(value * 1000 / size[index % 2] - 0.5) for index, value in enumerate(outline)]] for outline in outlines]
    labels = ["a"] * len(bins)
    return Result("<OPEN_VOCABULARY_DETECTION>", "boxes_or_polygons", size, "", "", polygons=bins, labels=labels, bins=bins)


def test_polygons_are_moved_joined_and_merged() -> None:
    boxes = Tiles("2x1", 0.2, includes_whole=False).boxes(SIZE)
    left = polygon_result([[300, 100, 556, 100, 556, 300], [10, 10, 50, 10, 50, 50]], (556, 800))
    right = polygon_result([[0, 100, 256, 100, 256, 300]], (556, 800))
    right = replace(right, bins=[[[0, 125, 500, 125, 500, 375, 0, 375]]], polygons=[[[0, 100, 278, 100, 278, 300, 0, 300]]])
    merged = merge([left, right], boxes, SIZE)
    assert [len(outlines) for outlines in merged.polygons] == [1, 2]
    assert merged.objects[1].box == pytest.approx((300, 100, 722, 300), abs=2)
    assert merged.to_dict()["<OPEN_VOCABULARY_DETECTION>"]["bboxes"] == []
    assert "<poly>" in merged.text
    mixed = replace(right, polygons=[], boxes=[[0, 100, 278, 300]], bins=[[0, 125, 500, 375]])
    assert merge([left, mixed], boxes, SIZE).boxes  # boxes and polygons in one answer are boxes


@given(tiles=TILES)
def test_nothing_found_is_an_empty_answer(tiles: Tiles) -> None:
    boxes = tiles.boxes(SIZE)
    merged = merge([result_of([], box) for box in boxes], boxes, SIZE)
    assert (merged.boxes, merged.labels, merged.bins, merged.text) == ([], [], [], "")
    assert merged.to_dict(coordinates="float") == {"<OD>": {"bboxes": [], "labels": []}}


def test_boxes_without_an_area_are_left_out() -> None:
    boxes = Tiles("2x1").boxes(SIZE)
    odd = replace(result_of([Thing("car", (5, 5, 50, 50))], boxes[0]), bins=[[500, 10, 400, 90]], boxes=[[500, 8, 400, 72]])
    assert merge([odd, *(result_of([], box) for box in boxes[1:])], boxes, SIZE).boxes == []


@pytest.mark.slow
def test_thousands_of_objects_do_not_hold_up_the_engine() -> None:
    """Merging runs in the engine's thread: a hostile picture must not take it for minutes. It takes about a second."""
    started = time.process_time()
    boxes = Tiles("8x8").boxes((8000, 8000))
    rng = np.random.default_rng(0)
    results = []
    for box in boxes:
        corners = rng.uniform(0, 800, (100, 2))
        results.append(result_of([Thing(f"{index % 7}", (x, y, x + 60, y + 60)) for index, (x, y) in enumerate(corners)], box))
    assert 1000 < len(merge(results, boxes, (8000, 8000)).labels) < 6500
    assert time.process_time() - started < 20


def test_labels_are_kept_apart() -> None:
    boxes = Tiles("2x1", 0.2).boxes(SIZE)
    things = [Thing(label, (480, 100, 520, 140)) for label in ("car", "taxi")]
    assert sorted(merge(observe(things, boxes), boxes, SIZE).labels) == ["car", "taxi"]
