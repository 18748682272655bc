"""Pictures in shared memory: what is read is what was written, and large ones leave no memory behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest

from florence2.engine_process.lanes import KEPT_BYTES, LaneReader, Lanes
from florence2.images.resized import ResizedPicture

SIDE = 768


@pytest.fixture
def lanes() -> Iterator[Lanes]:
    with closing(Lanes(2)) as lanes:
        yield lanes


def picture(seed: int, num_tiles: int = 0, side: int = SIDE) -> ResizedPicture:
    values = np.random.default_rng(seed)

    def pixels() -> np.ndarray:
        return values.integers(0, 256, (side, side, 3), dtype=np.uint8)

    boxes = [(index * 10, 0, index * 10 + 20, 30) for index in range(num_tiles)]
    return ResizedPicture(pixels(), (1000, 30), {box: ResizedPicture(pixels(), (20, 30)) for box in boxes})


def test_a_picture_and_its_tiles_come_through(lanes: Lanes) -> None:
    reader = LaneReader(lanes.descriptors)
    for seed, (num_tiles, side) in enumerate([(0, 32), (3, 32), (0, SIDE), (9, SIDE), (1, 32)]):
        given = picture(seed, num_tiles, side)
        with lanes.taken() as lane:
            read = reader.read(lane.index, lane.write(given))
        assert read.size == (1000, 30)
        assert (read.pixels == given.pixels).all()
        assert list(read.parts) == list(given.parts)
        assert all((read.crop(box).pixels == part.pixels).all() and read.crop(box).size == (20, 30) for box, part in given.parts.items())


def test_what_was_read_is_a_copy(lanes: Lanes) -> None:
    reader = LaneReader(lanes.descriptors)
    first = picture(1, side=32)
    with lanes.taken() as lane:
        read = reader.read(lane.index, lane.write(first))
        reader.read(lane.index, lane.write(picture(2, side=32)))
    assert (read.pixels == first.pixels).all()


def test_lanes_grow_for_tiles_and_shrink_afterwards(lanes: Lanes) -> None:
    with lanes.taken() as lane:
        layout = lane.write(picture(1, num_tiles=16))
        assert os.fstat(lane.descriptor).st_size == layout.num_bytes > KEPT_BYTES
    assert os.fstat(lane.descriptor).st_size == KEPT_BYTES


def test_each_caller_has_a_lane_of_its_own(lanes: Lanes) -> None:
    with lanes.taken() as one, lanes.taken() as other:
        assert one.index != other.index
    with lanes.taken() as again:
        assert again.index in (one.index, other.index)
