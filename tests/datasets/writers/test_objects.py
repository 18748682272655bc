"""Outlines and boxes as data sets hold them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask

from florence2.datasets.writers.objects import joined_outline, written_objects
from florence2.datasets.writers.written import Notices
from florence2.outlines import corners, outline_area
from florence2.results import Outline
from tests.datasets.writers.labelled_sets import thing

SQUARE = (10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0)
TRIANGLE = (50.0, 10.0, 62.0, 34.0, 38.0, 34.0)
AWAY = (10.0, 40.0, 20.0, 40.0, 20.0, 46.0)


@pytest.mark.parametrize(("outline", "area"), [(SQUARE, 400), (TRIANGLE, 288), (SQUARE[::-1], 400), (corners((1, 2, 4, 8)), 18)])
def test_the_area_of_an_outline(outline, area):
    assert outline_area(outline) == area


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools decodes masks so
def test_outlines_joined_into_one_cover_the_same_pixels():
    several: tuple[Outline, ...] = (SQUARE, TRIANGLE, AWAY)
    one = joined_outline(several)
    assert outline_area(one) == pytest.approx(sum(map(outline_area, several)))
    separate, joined = (covered(each) for each in (several, (one,)))
    assert (separate & ~joined).sum() == 0
    assert (joined & ~separate).sum() < 60  # the lines between them, which pycocotools draws a pixel wide


def test_what_reaches_out_of_the_picture_is_cut(make_picture):
    outline = (-5.0, 10.0, 70.0, 10.0, 70.0, 50.0)
    picture = make_picture(objects=(thing(box=(-5, 10, 70, 50), polygons=(outline, (1.0, 1.0, 2.0, 2.0), (1.0, 1.0, 2.0, 2.0, 3.0, 3.0))),))
    (written,) = written_objects(picture, {"car": 0}, Notices())
    assert written.found.box == (0, 10, 64, 48)
    assert written.found.polygons == ((0, 10, 64, 10, 64, 48),)


@given(st.lists(st.tuples(st.floats(), st.floats()), max_size=6), st.tuples(*[st.floats()] * 4))
def test_any_numbers_become_objects_within_the_picture_or_none(points, box):
    outline = tuple(value for point in points for value in point)
    picture = type("Picture", (), {"objects": (thing(box=box, polygons=(outline,)),), "size": (64, 48), "name": "a"})
    for written in written_objects(picture, {"car": 0}, Notices()):  # type: ignore[arg-type]
        x1, y1, x2, y2 = written.found.box
        assert 0 <= x1 < x2 <= 64
        assert 0 <= y1 < y2 <= 48
        assert all(outline_area(outline) > 0 for outline in written.found.polygons)


def covered(outlines):
    return mask.decode(mask.merge(mask.frPyObjects([list(outline) for outline in outlines], 48, 64))).astype(np.bool_)
