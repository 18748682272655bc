"""The picture of what scores are worth, as SVG: the share of objects that are right over what was scored, before and now.

In: ``benchmarks/results/calibration.json``. Out: the text of a picture. A point lies on the diagonal where a score says how often such
objects are right; the more objects, the larger the point.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from docs.figures import RESULTS, ROOT

PICTURE = ROOT / "docs" / "pictures" / "scores.svg"
SIZE, LEFT, TOP, SIDE = 420, 58, 16, 340
CURVES = (("before", "before", "#d95f02"), ("score", "scores", "#1f77b4"))


def reliability(path: Path = RESULTS / "calibration.json") -> str:
    """The picture; with the diagonal alone where nothing was measured."""
    found = json.loads(path.read_text(encoding="utf-8"))["figures"]["tasks"]["all"] if path.is_file() else {}
    box = {"width": str(SIZE), "height": str(SIZE), "viewBox": f"0 0 {SIZE} {SIZE}"}
    picture = Element("svg", {"xmlns": "http://www.w3.org/2000/svg", **box, "font-family": "sans-serif", "font-size": "13"})
    SubElement(picture, "rect", {"width": "100%", "height": "100%", "fill": "white"})
    _axes(picture)
    for line, (key, name, colour) in enumerate(CURVES):
        _curve(picture, found.get(f"{key} curve", []), colour)
        _write(picture, LEFT + 14, TOP + 24 + 20 * line, name, colour)
    return ElementTree.tostring(picture, encoding="unicode") + "\n"


def _x(score: float) -> float:
    return round(LEFT + score * SIDE, 1)


def _y(share: float) -> float:
    return round(TOP + (1 - share) * SIDE, 1)


def _axes(picture: Element) -> None:
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        for start, end in (((tick, 0), (tick, 1)), ((0, tick), (1, tick))):
            _line(picture, [start, end], "#dddddd", "1")
        _write(picture, _x(tick), TOP + SIDE + 18, f"{tick:g}", "#444444", "middle")
        _write(picture, LEFT - 8, _y(tick) + 4, f"{tick:g}", "#444444", "end")
    _line(picture, [(0, 0), (1, 1)], "#888888", "1", dashes="5 4")
    _write(picture, LEFT + SIDE / 2, TOP + SIDE + 42, "score", "#444444", "middle")
    turned = _write(picture, 0, 0, "share that is right", "#444444", "middle")
    turned.set("transform", f"translate(16 {TOP + SIDE / 2:g}) rotate(-90)")


def _curve(picture: Element, points: Sequence[Sequence[float]], colour: str) -> None:
    """Mean score, share that is right and number of each tenth."""
    _line(picture, [(score, share) for score, share, _ in points], colour, "2")
    total = sum(count for _, _, count in points)
    for score, share, count in points:
        radius = f"{2 + 10 * math.sqrt(count / total):.1f}"
        SubElement(picture, "circle", {"cx": f"{_x(score)}", "cy": f"{_y(share)}", "r": radius, "fill": colour, "fill-opacity": "0.7"})


def _line(picture: Element, places: Sequence[tuple[float, float]], colour: str, width: str, dashes: str = "none") -> None:
    points = " ".join(f"{_x(score)},{_y(share)}" for score, share in places)
    style = {"fill": "none", "stroke": colour, "stroke-width": width, "stroke-dasharray": dashes}
    SubElement(picture, "polyline", {"points": points, **style})


def _write(picture: Element, x: float, y: float, text: str, colour: str, anchor: str = "start") -> Element:
    written = SubElement(picture, "text", {"x": f"{x:g}", "y": f"{y:g}", "fill": colour, "text-anchor": anchor})
    written.text = text
    return written
