"""How certain places are, against every case counted by itself."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from florence2.location_bins import NUM_BINS
from florence2.tasks.certainty import TOLERANCE, certainty_of_boxes, certainty_of_outline

WHOLE = [0, 0, 999, 999]


def row(masses: dict[int, float]) -> np.ndarray:
    values = np.zeros(NUM_BINS, dtype=np.float32)
    for bin_index, mass in masses.items():
        values[bin_index] += mass
    return values


def of_box(box: list[int], edges: list[dict[int, float]]) -> float:
    return float(certainty_of_boxes([box], np.stack([row(edge) for edge in edges])[None])[0])


def overlap(one: tuple[float, ...], other: list[float]) -> float:
    width, height = (max(0.0, min(one[axis + 2], other[axis + 2]) - max(one[axis], other[axis])) for axis in range(2))
    areas = [max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1]) for box in (one, other)]
    return width * height / (sum(areas) - width * height)


def probability_of_overlap(box: list[int], edges: list[dict[int, float]], least: float) -> float:
    """By every combination of what the four edges may be, at the middles of their bins."""
    middle = [value + 0.5 for value in box]
    total = 0.0
    for combination in product(*(edge.items() for edge in edges)):
        if overlap(tuple(place + 0.5 for place, _ in combination), middle) >= least:
            total += float(np.prod([mass for _, mass in combination]))
    return total


def edge_of(value: int, size: int) -> st.SearchStrategy[dict[int, float]]:
    """A few bins near an edge or far from it, with probabilities that leave some for other tokens."""
    near = st.integers(-size, size).map(lambda offset: min(max(value + offset, 0), NUM_BINS - 1))
    masses = st.lists(st.floats(0.01, 1.0), min_size=4, max_size=4)
    places = st.tuples(st.just(value), near, near, st.integers(0, NUM_BINS - 1))

    def spread(drawn: tuple[tuple[int, ...], list[float]]) -> dict[int, float]:
        edge: dict[int, float] = {}
        for place, mass in zip(*drawn, strict=True):
            edge[place] = edge.get(place, 0.0) + mass / max(1.0, sum(drawn[1]))
        return edge

    return st.tuples(places, masses).map(spread)


@st.composite
def boxes(draw: st.DrawFn) -> tuple[list[int], list[dict[int, float]]]:
    corners = [draw(st.one_of(st.just((0, 999)), st.tuples(st.integers(0, 900), st.integers(60, 999)))) for _ in range(2)]
    low, high = zip(*((start, min(max(end, start + 60), 999)) for start, end in corners), strict=True)
    box = [*low, *high]
    return box, [draw(edge_of(value, box[2 + index % 2] - box[index % 2])) for index, value in enumerate(box)]


@pytest.mark.slow
@settings(max_examples=200, deadline=None, derandomize=True)
@given(boxes())
def test_a_box_is_as_certain_as_all_cases_counted_one_by_one(drawn: tuple[list[int], list[dict[int, float]]]) -> None:
    box, edges = drawn
    certainty = of_box(box, edges)
    # Cases are gathered into cells, so those whose overlap is close to a half may fall on either side.
    assert probability_of_overlap(box, edges, 0.62) - 0.02 <= certainty <= probability_of_overlap(box, edges, 0.38) + 0.02


@pytest.mark.parametrize("box", [WHOLE, [100, 200, 300, 400], [0, 500, 40, 999], [0, 0, 12, 12], [987, 987, 999, 999]])
def test_a_model_that_is_sure_of_every_edge_is_sure_of_the_box(box: list[int]) -> None:
    assert of_box(box, [{value: 1.0} for value in box]) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("box", [[0, 0, 0, 0], [999, 999, 999, 999], [5, 5, 5, 5]])
def test_a_box_as_small_as_a_bin_is_never_certain(box: list[int]) -> None:
    assert 0.1 < of_box(box, [{value: 1.0} for value in box]) < 0.5  # its edges may lie anywhere in the bin


def test_what_is_near_counts_by_the_size_of_the_box_and_what_is_far_does_not() -> None:
    shared = {300: 0.25, 304: 0.5, 309: 0.25}  # a few bins off
    large = [{100: 1.0}, {100: 1.0}, {**shared}, {500: 1.0}]
    assert of_box([100, 100, 304, 500], large) == pytest.approx(1.0, abs=1e-6)
    tiny = [{298: 1.0}, {100: 1.0}, {**shared}, {500: 1.0}]  # the same edge of a box that is 6 bins wide: 300 and 309 are half of it off
    assert 0.4 < of_box([298, 100, 304, 500], tiny) < 0.8
    assert of_box([100, 100, 304, 500], [{100: 1.0}, {100: 1.0}, {304: 0.6, 900: 0.4}, {500: 1.0}]) == pytest.approx(0.6, abs=1e-6)
    assert of_box([100, 100, 304, 500], [{100: 1.0}, {100: 0.5}, {304: 0.6}, {500: 1.0}]) == pytest.approx(0.3, abs=1e-6)
    assert of_box([100, 100, 304, 500], [{900: 1.0}, {100: 1.0}, {304: 1.0}, {500: 1.0}]) == 0.0


def test_edges_may_be_off_together_only_as_far_as_the_overlap_allows() -> None:
    box = [400, 400, 600, 600]
    assert of_box(box, [{460: 1.0}, {400: 1.0}, {600: 1.0}, {600: 1.0}]) == pytest.approx(1.0, abs=1e-6)  # 0.7 of the area
    assert of_box(box, [{460: 1.0}, {460: 1.0}, {540: 1.0}, {540: 1.0}]) == 0.0  # 0.16


def test_a_box_upside_down_is_the_one_between_its_edges_and_bins_beyond_the_image_are_its_last() -> None:
    rows = [{100: 0.9}, {200: 0.8}, {300: 0.7}, {400: 0.6}]
    assert of_box([300, 400, 100, 200], [*rows[2:], *rows[:2]]) == pytest.approx(of_box([100, 200, 300, 400], rows))
    assert of_box([0, 0, 5000, 10**18], [{0: 1.0}, {0: 1.0}, {999: 1.0}, {999: 1.0}]) == pytest.approx(1.0, abs=1e-6)


def test_boxes_have_the_same_certainty_together_and_alone() -> None:
    rng = np.random.default_rng(5)
    rows = rng.dirichlet(np.full(NUM_BINS, 0.02), (40, 4)).astype(np.float32)
    bins = rows.argmax(-1).tolist()
    together = certainty_of_boxes(bins, rows)
    alone = [float(certainty_of_boxes([box], rows[index : index + 1])[0]) for index, box in enumerate(bins)]
    assert together.tolist() == alone


def mass_within(values: np.ndarray, middle: float, reach: float) -> float:
    """A bin's mass lies evenly over it."""
    starts = np.arange(NUM_BINS)
    shares = np.clip(np.minimum(starts + 1, middle + reach) - np.maximum(starts, middle - reach), 0, 1)
    return float((shares * values).sum())


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.lists(st.one_of(st.integers(0, 999), st.sampled_from([0, 999])), min_size=1, max_size=30), st.integers(0, 2**32 - 1), st.booleans()
)
def test_an_outline_is_as_certain_as_its_least_sure_coordinate(bins: list[int], seed: int, is_sure: bool) -> None:
    rows = np.random.default_rng(seed).dirichlet(np.full(NUM_BINS, 0.05), len(bins)).astype(np.float32)
    if is_sure:
        rows = (rows * 0.2 + np.stack([row({value: 0.8}) for value in bins])).astype(np.float32)
    sizes = [max(bins[axis::2], default=0) - min(bins[axis::2], default=0) for axis in range(2)]
    expected = min(
        mass_within(values, value + 0.5, max(sizes[index % 2] * TOLERANCE, 0.5))
        for index, (value, values) in enumerate(zip(bins, rows, strict=True))
    )
    assert certainty_of_outline(bins, rows) == pytest.approx(expected, abs=2e-5)


def test_an_outline_of_nothing_is_not_certain() -> None:
    assert certainty_of_outline([], np.zeros((0, NUM_BINS), dtype=np.float32)) == 0.0
