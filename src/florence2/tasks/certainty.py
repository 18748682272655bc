"""How likely a place is right, from how probable the model held every location at each of its coordinates.

In: a place's bins and, for each, the probabilities of all 1,000 bins along the winning beam. Out: for a box the probability
that its overlap with the true one is at least a half, for a quad or an outline the probability of its least sure
coordinate. Nothing in here was fitted to a model; ``docs/scores.md`` says how well it holds. It knows neither tokens nor labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from florence2.location_bins import NUM_BINS

MIN_OVERLAP = 0.5
TOLERANCE = 0.25
"""How far a coordinate of a quad or an outline may be off, as a share of the width or height of the whole."""

# How far outside of the chosen edge the true one lies, in widths (or heights) of the box: cells that are narrow where the
# probability gathers. Further in or out, the overlap is under a half whatever the other edges are.
_BORDERS = np.array([-0.5, -0.42, -0.34, -0.26, -0.18, -0.1, -0.04, 0.04, 0.1, 0.18, 0.3, 0.45, 0.65, 1.0])
_NUM_CELLS = len(_BORDERS) - 1


def _enough_overlap() -> NDArray[np.float32]:
    """1 where true edges in the middle of these cells overlap enough with the box, ``[left and right, top and bottom]``."""
    middles = (_BORDERS[:-1] + _BORDERS[1:]) / 2
    low, high = (side.ravel() for side in np.meshgrid(middles, middles, indexing="ij"))
    length, common = 1 + low + high, 1 + np.minimum(low, 0) + np.minimum(high, 0)
    common_area = common[:, None] * common
    return (common_area >= MIN_OVERLAP * (1 + length[:, None] * length - common_area)).astype(np.float32)


_ENOUGH = _enough_overlap()


def certainty_of_boxes(bins: Sequence[Sequence[int]], probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """For each box the probability that its overlap with the true one is at least ``MIN_OVERLAP``, ``[boxes]``.

    The four edges are taken to be off independently of each other, each as its own token's probabilities say.

    Args:
        bins: x1, y1, x2, y2 of each.
        probabilities: of every location at each of the four, ``[boxes, 4, NUM_BINS]``.
    """
    corners = np.minimum(np.asarray(bins, dtype=np.float64), NUM_BINS - 1).reshape(-1, 2, 2)  # box, corner, axis
    size = np.maximum(np.abs(corners[:, 1] - corners[:, 0]), 1.0)
    # A box that is upside down is the one between its edges.
    is_low = np.stack([corners[:, 0] <= corners[:, 1], corners[:, 0] > corners[:, 1]], axis=1)[..., None]
    borders = corners[..., None] + 0.5 + size[:, None, :, None] * np.where(is_low, -_BORDERS[::-1], _BORDERS)
    masses = _between(borders.reshape(-1, _NUM_CELLS + 1), probabilities.reshape(-1, NUM_BINS)).reshape(-1, 2, 2, _NUM_CELLS)
    masses = np.where(is_low, masses[..., ::-1], masses)
    # How far two opposite edges are off together; which of them is called the first makes no difference.
    pairs = (masses[:, 0, :, :, None] * masses[:, 1, :, None, :]).reshape(-1, 2, _NUM_CELLS**2)
    return np.einsum("bi,bi->b", pairs[:, 0].astype(np.float32) @ _ENOUGH, pairs[:, 1])


def certainty_of_outline(bins: Sequence[int], probabilities: NDArray[np.float32]) -> float:
    """The probability of the least sure coordinate to be within ``TOLERANCE`` of the outline's size; 0 without any.

    Args:
        bins: x, y, x, y, … of all its rings.
        probabilities: of every location at each of them, ``[len(bins), NUM_BINS]``.
    """
    if not len(bins):
        return 0.0
    values = np.minimum(np.asarray(bins, dtype=np.float64), NUM_BINS - 1)
    reach = np.empty_like(values)
    for axis in range(min(2, len(values))):
        reach[axis::2] = max(TOLERANCE * np.ptp(values[axis::2]), 0.5)
    middles = values + 0.5
    return float(_between(np.stack([middles - reach, middles + reach], axis=1), probabilities).min())


def _between(borders: NDArray[np.float64], probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """How much of each row's probability lies between each two of its borders, which ascend; a bin's is spread evenly over it.

    Only what lies between them is added up, in one pass: the rows are long, and there are four for each box.
    """
    rows, count = borders.shape
    borders = borders.clip(0, NUM_BINS)
    whole = np.minimum(borders.astype(np.intp), NUM_BINS - 1)
    places = whole + np.arange(rows)[:, None] * NUM_BINS
    values = probabilities.ravel()
    sums = np.add.reduceat(values, places.ravel()).reshape(rows, count)[:, :-1]
    parts = (borders - whole) * values[places]
    # Where two borders lie in one bin, reduceat gives that bin.
    return np.where(whole[:, :-1] < whole[:, 1:], sums, 0.0) + parts[:, 1:] - parts[:, :-1]
