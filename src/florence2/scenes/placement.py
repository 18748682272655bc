"""Where things may go on a picture: boxes that keep clear of each other, shapes that leave each other visible.

In: boxes (x1, y1, x2, y2) and outlines in pixels. Out: whether they fit. Knows nothing of colours, kinds or words.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from florence2.datasets.boxes import Box

_MIN_VISIBLE = 0.6
_GRID = 96


def is_clear(box: Box, taken: Sequence[Box], margin: float) -> bool:
    """Whether a box keeps at least ``margin`` away from every one in ``taken``."""
    x1, y1, x2, y2 = box[0] - margin, box[1] - margin, box[2] + margin, box[3] + margin
    return all(x2 <= other[0] or other[2] <= x1 or y2 <= other[1] or other[3] <= y1 for other in taken)


def overlap(a: Box, b: Box) -> float:
    """The intersection over union of two boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


class Cover:
    """Which cells of a coarse grid each shape fills and shows, so that none is hidden too far by a later one."""

    def __init__(self, size: int) -> None:
        self._scale = _GRID / size
        self._visible: list[np.ndarray] = []
        self._num_cells: list[int] = []
        self._newest = np.zeros((_GRID, _GRID), dtype=bool)

    def admits(self, outline: np.ndarray) -> bool:
        """Whether all shapes so far stay visible under this outline, which is remembered for ``add``."""
        grid = Image.new("1", (_GRID, _GRID))
        ImageDraw.Draw(grid).polygon((outline * self._scale - 0.5).ravel().tolist(), fill=1)
        self._newest = np.asarray(grid)
        return all(
            np.count_nonzero(visible & ~self._newest) >= _MIN_VISIBLE * num_cells
            for visible, num_cells in zip(self._visible, self._num_cells, strict=True)
        )

    def add(self) -> None:
        """Put the outline that was admitted last on top."""
        self._visible = [visible & ~self._newest for visible in self._visible]
        self._visible.append(self._newest)
        self._num_cells.append(int(np.count_nonzero(self._newest)))
