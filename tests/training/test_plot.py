"""The picture of a run's loss: points where they belong, numbers that can be read, and no curve for what is no number."""

from __future__ import annotations

import math
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from florence2.training.plot import BOTTOM, COLOURS, HEIGHT, LEFT, MAX_POINTS, RIGHT, TOP, WIDTH, loss_plot

SVG = "{http://www.w3.org/2000/svg}"


def drawn(lines) -> ElementTree.Element:
    text = loss_plot(lines)
    assert text is not None
    return ElementTree.fromstring(text)


def curve(picture: ElementTree.Element, name: str) -> list[tuple[float, float]]:
    (line,) = [line for line in picture.iter(f"{SVG}polyline") if line.get("stroke") == COLOURS[name]]
    return [(float(x), float(y)) for x, y in (point.split(",") for point in (line.get("points") or "").split())]


def numbers(picture: ElementTree.Element, anchor: str) -> list[float]:
    texts = (text.text or "" for text in picture.iter(f"{SVG}text") if text.get("text-anchor") == anchor)
    return [float(text) for text in texts if text[:1].isdigit()]


def test_points_are_where_they_belong() -> None:
    picture = drawn([{"step": step, "loss": 10.0 ** (2 - step)} for step in range(5)])
    points = curve(picture, "loss")
    assert [x for x, _ in points] == pytest.approx([LEFT + step / 4 * (WIDTH - LEFT - RIGHT) for step in range(5)], abs=0.1)
    falls = [after[1] - before[1] for before, after in pairwise(points)]
    assert falls == pytest.approx([falls[0]] * 4, abs=0.2)  # a tenth each: equally far on a logarithmic axis
    assert all(TOP < y < HEIGHT - BOTTOM for _, y in points)
    assert numbers(picture, "end") == [0.01, 0.1, 1, 10, 100]
    assert numbers(picture, "middle") == [0, 1, 2, 3, 4]


def test_both_curves_have_their_names() -> None:
    lines = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5}, {"step": 2, "validation": 1.8}, {"step": 4, "validation": 1.2}]
    picture = drawn(lines)
    assert len(curve(picture, "loss")) == len(curve(picture, "validation")) == 2
    assert {"loss", "validation", "step", "loss a token"} <= {text.text for text in picture.iter(f"{SVG}text")}
    assert len(list(picture.iter(f"{SVG}circle"))) == 2


@pytest.mark.parametrize("values", [[1.0], [0.5, 0.5], [2.0, 2.0001], [1e-9, 1e9], [3.0, math.nan, 2.0], [1.0, math.inf, 0.0, -1.0, 0.5]])
def test_odd_values(values) -> None:
    picture = drawn([{"step": step, "loss": value} for step, value in enumerate(values, start=1)])
    points = curve(picture, "loss")
    assert len(points) == sum(math.isfinite(value) and value > 0 for value in values)
    assert all(LEFT <= x <= WIDTH - RIGHT and TOP <= y <= HEIGHT - BOTTOM for x, y in points)
    labels = numbers(picture, "end")
    assert 2 <= len(labels) <= 24
    assert labels == sorted(set(labels))


@pytest.mark.parametrize("lines", [[], [{"step": 1}], [{"step": 1, "loss": math.nan}], [{"step": 1, "validation": 0.0}]])
def test_nothing_to_draw(lines) -> None:
    assert loss_plot(lines) is None


def test_long_runs_make_no_large_file() -> None:
    text = loss_plot([{"step": step, "loss": 1 + 1 / step} for step in range(1, 100_001)])
    assert text is not None
    assert len(text) < 60_000
    points = curve(ElementTree.fromstring(text), "loss")
    assert len(points) <= MAX_POINTS + 1
    assert points[-1][0] == WIDTH - RIGHT
