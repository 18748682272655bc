"""Areas, corners and boxes of outlines."""

from __future__ import annotations

import pytest

from florence2.outlines import box_around, corners, ordered, outline_area


@pytest.mark.parametrize(
    ("outline", "area"),
    [
        ((0, 0, 4, 0, 4, 3, 0, 3), 12),
        ((0, 0, 0, 3, 4, 3, 4, 0), 12),
        ((0, 0, 4, 0, 0, 3), 6),
        ((1, 1, 5, 5), 0),
        ((), 0),
        ((0, 0, 4, 0, 0, 3, 9), 6),
    ],
)
def test_areas_do_not_depend_on_the_direction(outline: tuple[float, ...], area: float) -> None:
    assert outline_area(outline) == area


def test_boxes_and_their_corners() -> None:
    assert outline_area(corners((1, 2, 4, 6))) == 12
    assert box_around([corners((1, 2, 4, 6)), (9, 0)]) == (1, 0, 9, 6)
    assert ordered((4, 6, 1, 2)) == (1, 2, 4, 6)
