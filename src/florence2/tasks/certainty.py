"""The probability that a location is right, from the model's probabilities of all bins at each of its coordinates.

In: the bins of a box or outline and, for each of them, the probabilities of all 1,000 bins along the winning beam. Out: for a box, the
probability that its IoU with the true box is at least 0.5; for a quad or an outline, the probability of its least certain coordinate.
Nothing is fitted to a model; ``docs/scores.md`` has measurements. Knows neither tokens nor labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from florence2.location_bins import NUM_BINS

MIN_OVERLAP = 0.5
TOLERANCE = 0.25
"""The allowed error of a coordinate of a quad or an outline, as a fraction of its width or height."""

# Borders of cells for the distance from a predicted edge outwards to the true edge, in widths (or heights) of the box; cells are narrow
# where most of the probability is. Beyond the first and the last border, the IoU is under 0.5 whatever the other edges are.
_BORDERS = np.array([-0.5, -0.42, -0.34, -0.26, -0.18, -0.1, -0.04, 0.04, 0.1, 0.18, 0.3, 0.45, 0.65, 1.0])
_NUM_CELLS = len(_BORDERS) - 1


def _enough_overlap() -> NDArray[np.float32]:
    """1 where true edges in the middle of these cells give an IoU of at least ``MIN_OVERLAP``, ``[left and right, top and bottom]``."""
    middles = (_BORDERS[:-1] + _BORDERS[1:]) / 2
    low, high = (side.ravel() for side in np.meshgrid(middles, middles, indexing="ij"))
    length, common = 1 + low + high, 1 + np.minimum(low, 0) + np.minimum(high, 0)
    common_area = common[:, None] * common
    return (common_area >= MIN_OVERLAP * (1 + length[:, None] * length - common_area)).astype(np.float32)


_ENOUGH = _enough_overlap()


def certainty_of_boxes(bins: Sequence[Sequence[int]], probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """The probability for each box that its IoU with the true box is at least ``MIN_OVERLAP``, ``[boxes]``.

    The errors of the four edges are treated as independent, each distributed as its token's probabilities. A box has the same value, to the
    last digit, whatever other boxes it is computed with.

    Args:
        bins: x1, y1, x2, y2 of each box.
        probabilities: the probabilities of all bins at each coordinate, ``[boxes, 4, NUM_BINS]``.
    """
    corners = np.minimum(np.asarray(bins, dtype=np.float64), NUM_BINS - 1).reshape(-1, 2, 2)  # box, corner, axis
    size = np.maximum(np.abs(corners[:, 1] - corners[:, 0]), 1.0)
    # A box with swapped edges counts as the box between them.
    is_low = np.stack([corners[:, 0] <= corners[:, 1], corners[:, 0] > corners[:, 1]], axis=1)[..., None]
    borders = corners[..., None] + 0.5 + size[:, None, :, None] * np.where(is_low, -_BORDERS[::-1], _BORDERS)
    masses = _between(borders.reshape(-1, _NUM_CELLS + 1), probabilities.reshape(-1, NUM_BINS)).reshape(-1, 2, 2, _NUM_CELLS)
    masses = np.where(is_low, masses[..., ::-1], masses)
    # The joint distribution of two opposite edges; it does not matter which of them is the first.
    pairs = (masses[:, 0, :, :, None] * masses[:, 1, :, None, :]).reshape(-1, 2, _NUM_CELLS**2)
    # One box after the other: the rounding of a product of matrices depends on the number of its rows.
    return np.array([(across.astype(np.float32) @ _ENOUGH) @ down for across, down in pairs])


def certainty_of_outline(bins: Sequence[int], probabilities: NDArray[np.float32]) -> float:
    """The probability that the least certain coordinate has an error within ``TOLERANCE``; 0 without coordinates.

    Args:
        bins: x, y, x, y, … of all rings.
        probabilities: the probabilities of all bins at each coordinate, ``[len(bins), NUM_BINS]``.
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
    """The probability of each row between each two neighbouring borders, which ascend; within a bin it is spread evenly.

    Only bins between borders are summed, in one pass: rows are long, and there are four per box.
    """
    rows, count = borders.shape
    borders = borders.clip(0, NUM_BINS)
    whole = np.minimum(borders.astype(np.intp), NUM_BINS - 1)
    indices = whole + np.arange(rows)[:, None] * NUM_BINS
    values = probabilities.ravel()
    sums = np.add.reduceat(values, indices.ravel()).reshape(rows, count)[:, :-1]
    parts = (borders - whole) * values[indices]
    # For two borders in the same bin, reduceat returns that bin.
    return np.where(whole[:, :-1] < whole[:, 1:], sums, 0.0) + parts[:, 1:] - parts[:, :-1]
