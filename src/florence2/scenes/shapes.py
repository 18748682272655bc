"""The outlines of the shapes that scenes are made of.

In: the kind of a shape, a rotation and a stretch. Out: its outline about the origin, as vertices in picture axes (y downwards),
clockwise and always from the same corner of that kind, scaled so that the longer side of its box is one. Knows nothing of
pixels, colours or places.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

MAX_VERTICES = 12
_FINE = 48


def _ring(num_points: int, *, radii: Sequence[float] = (1.0,), start: float = -90.0) -> np.ndarray:
    angles = np.radians(start + 360 / num_points * np.arange(num_points))
    radius = np.resize(np.array(radii), num_points)
    return np.stack([np.cos(angles) * radius, np.sin(angles) * radius], axis=1)


def _swelling(step: float) -> float:
    """The radius of vertices ``step`` radians apart that enclose the same area as an arc of radius 1."""
    return math.sqrt(step / math.sin(step))


def _circle(num_points: int) -> np.ndarray:
    return _ring(num_points) * _swelling(2 * math.pi / num_points)


def _square(num_points: int) -> np.ndarray:
    return _ring(4, start=-135)


def _triangle(num_points: int) -> np.ndarray:
    return _ring(3)


def _star(num_points: int) -> np.ndarray:
    return _ring(10, radii=(1.0, 0.45))


def _diamond(num_points: int) -> np.ndarray:
    return _ring(4) * (0.68, 1.0)


def _cross(num_points: int) -> np.ndarray:
    arm = 0.34
    quarter = np.array([(-arm, -1.0), (arm, -1.0), (arm, -arm)])
    turns = [quarter]
    for _ in range(3):
        turns.append(np.stack([-turns[-1][:, 1], turns[-1][:, 0]], axis=1))
    return np.concatenate(turns)


def _heart(num_points: int) -> np.ndarray:
    """The heart curve, from the notch over the right lobe."""
    if num_points > MAX_VERTICES:
        return _heart_curve(np.linspace(0, 2 * math.pi, num_points, endpoint=False))
    # Few vertices go where the curve bends: these places and this swelling share most area with the curve (IoU 0.957).
    right = np.radians([35, 56, 80, 103, 151])
    return _heart_curve(np.concatenate([[0.0], right, [math.pi], (2 * math.pi - right)[::-1]])) * 1.04


def _heart_curve(t: np.ndarray) -> np.ndarray:
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    # The box's middle lies 2.5 below the curve's origin; a swelling must start from there.
    return np.stack([x, -y - 2.5], axis=1)


def _moon(num_points: int) -> np.ndarray:
    """A crescent that opens to the right, from the upper horn along the inner arc."""
    tip = math.radians(48)
    num_inner = num_points // 3
    inner_centre = 0.52
    horn_x, horn_y = math.cos(tip) - inner_centre, math.sin(tip)
    radius, lean = math.hypot(horn_x, horn_y), math.atan2(horn_y, horn_x)
    inner = np.linspace(2 * math.pi - lean, lean, num_inner + 2)[:-1]
    outer = np.linspace(tip, 2 * math.pi - tip, num_points - num_inner)[:-1]
    swollen_radius = np.where(np.arange(len(inner)) == 0, radius, radius * _swelling(float(inner[0] - inner[1])))
    inner_arc = np.stack([inner_centre + swollen_radius * np.cos(inner), swollen_radius * np.sin(inner)], axis=1)
    swollen_one = np.where(np.arange(len(outer)) == 0, 1.0, _swelling(float(outer[1] - outer[0])))
    outer_arc = np.stack([swollen_one * np.cos(outer), swollen_one * np.sin(outer)], axis=1)
    return np.concatenate([inner_arc, outer_arc])


def _arrow(num_points: int) -> np.ndarray:
    """An arrow that points up, from its tip."""
    head, shaft, neck = 0.72, 0.26, -0.12
    right = [(0.0, -1.0), (head, neck), (shaft, neck), (shaft, 1.0)]
    return np.array(right + [(-x, y) for x, y in right[:0:-1]])


_OUTLINES: dict[str, Callable[[int], np.ndarray]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "diamond": _diamond,
    "cross": _cross,
    "heart": _heart,
    "moon": _moon,
    "arrow": _arrow,
}
ALL_KINDS: tuple[str, ...] = tuple(_OUTLINES)
NEW_KIND = "arrow"  # kept from the demo model, so that there is something new to teach it
KINDS: tuple[str, ...] = tuple(kind for kind in ALL_KINDS if kind != NEW_KIND)

_COARSE_OUTLINES = {kind: outline(MAX_VERTICES) for kind, outline in _OUTLINES.items()}
_FINE_OUTLINES = {kind: outline(_FINE) for kind, outline in _OUTLINES.items()}


def outlines(kind: str, *, degrees: float = 0.0, stretch: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Two outlines of a shape: one to paint it, and one with at most ``MAX_VERTICES`` vertices to describe it.

    Both are centred on the middle of the painted shape's box, whose longer side is 1. The vertices of the second stand a hair
    outside where the outline is an arc, so that both enclose about the same area.

    Args:
        kind: name out of ``ALL_KINDS``.
        degrees: rotation, clockwise.
        stretch: height over width against the regular shape.
    """
    radians = math.radians(degrees)
    turn = np.array([[math.cos(radians), math.sin(radians)], [-math.sin(radians), math.cos(radians)]])
    turned = (1.0, stretch) * _FINE_OUTLINES[kind] @ turn
    low, high = turned.min(axis=0), turned.max(axis=0)
    middle, side = (low + high) / 2, float((high - low).max())
    coarse = (1.0, stretch) * _COARSE_OUTLINES[kind] @ turn
    return (turned - middle) / side, (coarse - middle) / side
