"""Tiles cover every pixel, overlap as asked, and are refused where there would be too many."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from florence2.errors import InvalidImage, InvalidOption
from florence2.tiling.tiles import MAX_TILES, MIN_SIDE, Tiles, as_tiles, read_tiles

SIDES = st.integers(1, 3000)
GRIDS = st.tuples(st.integers(1, 8), st.integers(1, 8)).map(lambda grid: f"{grid[0]}x{grid[1]}")
CUTS = st.one_of(GRIDS, st.integers(MIN_SIDE, 4000))
OVERLAPS = st.floats(0, 0.5)


@given(size=st.tuples(SIDES, SIDES), cut=CUTS, overlap=OVERLAPS, includes_whole=st.booleans())
def test_tiles_cover_every_pixel_and_none_is_a_sliver(size: tuple[int, int], cut: Any, overlap: float, includes_whole: bool) -> None:
    tiles = Tiles(cut, overlap, includes_whole)
    try:
        boxes = tiles.boxes(size)
    except InvalidImage:
        return
    assert boxes == tiles.boxes(size)
    whole = (0, 0, *size)
    assert tiles.num_tiles(size) == len(boxes) - (includes_whole and len(boxes) > 1) <= MAX_TILES
    assert len(set(boxes)) == len(boxes)
    assert len(boxes) == 1 or (whole in boxes) == includes_whole
    if boxes == [whole]:
        return
    is_shown = np.zeros((size[1], size[0]), dtype=bool)
    parts = [box for box in boxes if box != whole]
    for left, top, right, bottom in parts:
        assert 0 <= left < right <= size[0]
        assert 0 <= top < bottom <= size[1]
        assert right - left >= min(MIN_SIDE, size[0])
        assert bottom - top >= min(MIN_SIDE, size[1])
        is_shown[top:bottom, left:right] = True
    assert is_shown.all()
    assert len({(right - left, bottom - top) for left, top, right, bottom in parts}) == 1
    for axis in (0, 1):
        spans = sorted({(box[axis], box[axis + 2]) for box in parts})
        for (_, end), (start, stop) in itertools.pairwise(spans):
            assert end - start >= overlap * (stop - start) - 2  # two roundings


def test_a_grid_and_a_side() -> None:
    assert Tiles("2x2").boxes((1000, 700))[0] == (0, 0, 1000, 700)
    assert Tiles("2x1", 0).boxes((1000, 700))[1:] == [(0, 0, 500, 700), (500, 0, 1000, 700)]
    assert Tiles(640, includes_whole=False).boxes((1150, 500)) == [(0, 0, 640, 500), (510, 0, 1150, 500)]
    assert Tiles(640) == Tiles(" 640 px ") == as_tiles("640") == as_tiles(Tiles(np.int64(640)))  # type: ignore[arg-type]
    assert Tiles("3X2").cut == "3x2"


@pytest.mark.parametrize("cut", [640, "1x1"])
@pytest.mark.parametrize("includes_whole", [True, False])
def test_a_picture_not_larger_than_a_tile_is_asked_about_once(cut: Any, includes_whole: bool) -> None:
    assert Tiles(cut, includes_whole=includes_whole).boxes((640, 480)) == [(0, 0, 640, 480)]


def test_a_small_picture_has_fewer_tiles_than_the_grid() -> None:
    assert Tiles("8x8").boxes((200, 63)) == [(0, 0, 200, 63), (0, 0, 77, 63), (62, 0, 139, 63), (123, 0, 200, 63)]


def test_too_many_tiles_are_the_mistake_of_the_picture() -> None:
    with pytest.raises(InvalidImage, match=r"tiles of 640 pixels would be 20 x 14 .* at most 64 .*give a side of 1352 or more") as refused:
        Tiles(640).boxes((10_000, 7000))
    assert refused.value.field == "tiles"
    with pytest.raises(InvalidImage, match="at most 64"):
        Tiles(64).boxes((178_000_000, 1))  # no list of millions is made


@given(
    size=st.tuples(st.integers(1, 20_000), st.integers(1, 20_000)),
    overlap=st.floats(0, 0.5),
    max_tiles=st.sampled_from([1, 9, 16, 64]),
    more=st.integers(0, 2000),
)
def test_the_side_that_a_refusal_names_would_do(size: tuple[int, int], overlap: float, max_tiles: int, more: int) -> None:
    side = Tiles(64, overlap).smallest_side(size, max_tiles)
    assert Tiles(side + more, overlap).num_tiles(size) <= max_tiles
    assert side == 64 or Tiles(side - 1, overlap).num_tiles(size) > max_tiles


@pytest.mark.parametrize(
    ("cut", "said"),
    [
        ("640x480", "at most 64 tiles; '640x480' are 307200; for tiles of 640 pixels write 640"),
        ("9x9", "at most 64 tiles; '9x9' are 81$"),
        ("0x2", "at least one column and one row"),
        *((wrong, "tiles must be a grid of columns x rows") for wrong in ("", "two", 63, -1, True, 2.5, None, [2, 2], "2x2x2", "9" * 400)),
        pytest.param(10**5000, "got a number out of range", id="huge"),
    ],
)
def test_wrong_tiles_are_refused(cut: Any, said: str) -> None:
    with pytest.raises(InvalidOption, match=said) as refused:
        Tiles(cut)
    assert refused.value.field == "tiles"
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("overlap", [-0.1, 0.6, float("nan"), "0.2", True])
def test_wrong_overlaps_are_refused(overlap: Any) -> None:
    with pytest.raises(InvalidOption, match=r"share of a tile's side from 0 to 0\.5") as refused:
        Tiles("2x2", overlap)
    assert refused.value.field == "tile_overlap"


def test_fields_of_a_request() -> None:
    assert read_tiles(None) is None
    assert read_tiles("2x2", 0.3, tiles_only=True) == Tiles("2x2", 0.3, includes_whole=False)
    wrong: list[dict[str, Any]] = [{"overlap": 0.3}, {"tiles_only": True}]
    for fields in wrong:
        with pytest.raises(InvalidOption, match="goes with tiles"):
            read_tiles(None, **fields)
