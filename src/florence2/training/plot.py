"""The curves of a run's loss as an SVG picture, which every browser and editor shows.

In: the lines of a run's log. Out: the text of a picture with training and validation loss over steps, on a logarithmic axis. Knows
nothing of files.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

WIDTH, HEIGHT = 770, 440
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 20, 50
COLOURS = {"loss": "#1f77b4", "validation": "#d95f02"}
MAX_POINTS = 2000  # of a curve: more can't be told apart, and make a large file
NUM_TICKS = 6

Point = tuple[float, float]


@dataclass(frozen=True)
class _Scale:
    """Steps and losses as points in the picture."""

    steps: tuple[float, float]
    losses: tuple[float, float]

    def x(self, step: float) -> float:
        low, high = self.steps
        return round(LEFT + (step - low) / (high - low) * (WIDTH - LEFT - RIGHT), 1)

    def y(self, loss: float) -> float:
        low, high = map(math.log10, self.losses)
        return round(HEIGHT - BOTTOM - (math.log10(loss) - low) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)


def loss_plot(lines: Sequence[Mapping[str, Any]]) -> str | None:
    """The picture; None where no line has a loss that can be drawn."""
    curves = {name: points for name in COLOURS if (points := _points(lines, name))}
    if not curves:
        return None
    every = [point for points in curves.values() for point in points]
    scale = _Scale(_steps(step for step, _ in every), _losses(loss for _, loss in every))
    size = {"width": str(WIDTH), "height": str(HEIGHT), "viewBox": f"0 0 {WIDTH} {HEIGHT}"}
    picture = Element("svg", {"xmlns": "http://www.w3.org/2000/svg", **size, "font-family": "sans-serif", "font-size": "13"})
    SubElement(picture, "rect", {"width": "100%", "height": "100%", "fill": "white"})
    _draw_axes(picture, scale)
    for index, (name, points) in enumerate(curves.items()):
        _draw_curve(picture, scale, name, points)
        _write(picture, WIDTH - RIGHT - 10, TOP + 20 + 20 * index, name, "end", fill=COLOURS[name])
    return ElementTree.tostring(picture, encoding="unicode") + "\n"


def _points(lines: Sequence[Mapping[str, Any]], name: str) -> list[Point]:
    """What can be drawn of a curve: a loss that is no number, or 0, can't be drawn."""
    points = [(line["step"], line[name]) for line in lines if name in line and math.isfinite(line[name]) and line[name] > 0]
    every = -(-len(points) // MAX_POINTS)
    return [*points[:-1][::every], points[-1]] if points else []


def _steps(values: Iterable[float]) -> tuple[float, float]:
    low, high = _ends(values)
    return (low, high) if high > low else (low - 1, high + 1)


def _losses(values: Iterable[float]) -> tuple[float, float]:
    low, high = _ends(values)
    return low / 1.1, high * 1.1


def _ends(values: Iterable[float]) -> tuple[float, float]:
    listed = list(values)
    return min(listed), max(listed)


def _draw_axes(picture: Element, scale: _Scale) -> None:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    for step in _round_numbers(*scale.steps):
        if step == int(step):
            _line(picture, scale.x(step), TOP, scale.x(step), bottom)
            _write(picture, scale.x(step), bottom + 18, f"{step:.0f}", "middle")
    for loss in _loss_ticks(*scale.losses):
        _line(picture, LEFT, scale.y(loss), right, scale.y(loss))
        _write(picture, LEFT - 8, scale.y(loss) + 4, f"{loss:.4g}", "end")
    frame = {"x": LEFT, "y": TOP, "width": right - LEFT, "height": bottom - TOP}
    SubElement(picture, "rect", {**{name: str(value) for name, value in frame.items()}, "fill": "none", "stroke": "#444"})
    _write(picture, (LEFT + right) / 2, HEIGHT - 10, "step", "middle")
    _write(picture, 18, (TOP + bottom) / 2, "loss a token", "middle", transform=f"rotate(-90 18 {(TOP + bottom) / 2})")


def _draw_curve(picture: Element, scale: _Scale, name: str, points: Sequence[Point]) -> None:
    points_xy = [(scale.x(step), scale.y(loss)) for step, loss in points]
    path = " ".join(f"{x},{y}" for x, y in points_xy)
    SubElement(picture, "polyline", {"points": path, "fill": "none", "stroke": COLOURS[name], "stroke-width": "1.5"})
    if name == "validation" or len(points_xy) == 1:
        for x, y in points_xy:
            SubElement(picture, "circle", {"cx": str(x), "cy": str(y), "r": "3", "fill": COLOURS[name]})


def _loss_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten; where that gives too few, even steps; where it gives too many, powers alone."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1,)):
        ticks = [tick for power in powers for factor in factors if low <= (tick := factor * 10.0**power) <= high]
        if len(ticks) <= 2 * NUM_TICKS:
            break
    return ticks if len(ticks) > 2 else list(_round_numbers(low, high))


def _round_numbers(low: float, high: float) -> Iterator[float]:
    """About ``NUM_TICKS`` numbers with few digits in a range, evenly spaced."""
    rough = (high - low) / NUM_TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    distance = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    for number in range(math.ceil(low / distance), math.floor(high / distance) + 1):
        yield number * distance


def _line(picture: Element, x1: float, y1: float, x2: float, y2: float) -> None:
    SubElement(picture, "line", {"x1": str(x1), "y1": str(y1), "x2": str(x2), "y2": str(y2), "stroke": "#ddd"})


def _write(picture: Element, x: float, y: float, text: str, anchor: str, **attributes: str) -> None:
    SubElement(picture, "text", {"x": str(x), "y": str(y), "text-anchor": anchor, **attributes}).text = text
