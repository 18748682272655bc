"""Shared memory through which pictures get into the engine's process, one picture at a time in each lane.

A lane is an anonymous file that both processes map. The server writes a picture and says where it is, the child copies it and says so, then
the lane is free. Lanes grow for pictures with many tiles and shrink afterwards. Not in ``/dev/shm``, which is small in containers.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from queue import LifoQueue

import numpy as np
from numpy.typing import NDArray

from florence2.engine_process.messages import PictureLayout
from florence2.images.resized import ResizedPicture

KEPT_BYTES = 2**23  # four pictures of 768 x 768: a lane that has grown beyond that gives the rest back


class Lane:
    """One lane, at the side that writes.

    Attributes:
        index: its number.
        descriptor: of the file.
    """

    def __init__(self, index: int) -> None:
        self.index = index
        self.descriptor = _anonymous_file()
        self._map: mmap.mmap | None = None
        self._num_bytes = 0

    def write(self, picture: ResizedPicture) -> PictureLayout:
        """Write a picture and its tiles; where they are."""
        height, width, _ = picture.pixels.shape
        layout = PictureLayout(height, width, picture.size, tuple(picture.parts))
        if self._map is None or layout.num_bytes > self._num_bytes:
            self._resize(layout.num_bytes)
        assert self._map is not None
        parts = [picture, *picture.parts.values()]
        pixels = _pixels(self._map, layout)
        for index, part in enumerate(parts):
            pixels[index] = part.pixels
        return layout

    def shrink(self) -> None:
        """Free the memory that only a large picture needed."""
        if self._num_bytes > KEPT_BYTES:
            self._resize(KEPT_BYTES)

    def close(self) -> None:
        """Free everything."""
        self._unmap()
        os.close(self.descriptor)

    def _resize(self, num_bytes: int) -> None:
        self._unmap()
        os.ftruncate(self.descriptor, num_bytes)
        self._map, self._num_bytes = mmap.mmap(self.descriptor, num_bytes), num_bytes

    def _unmap(self) -> None:
        if self._map is not None:
            self._map.close()
        self._map, self._num_bytes = None, 0


class Lanes:
    """The lanes of one server; they outlive the engine's process.

    Args:
        num_lanes: how many pictures may be on their way at once.
    """

    def __init__(self, num_lanes: int) -> None:
        self._lanes = [Lane(index) for index in range(num_lanes)]
        self._free: LifoQueue[Lane] = LifoQueue()
        for lane in reversed(self._lanes):
            self._free.put(lane)

    @property
    def descriptors(self) -> list[int]:
        """Their files, in the order of their numbers."""
        return [lane.descriptor for lane in self._lanes]

    @contextmanager
    def taken(self) -> Iterator[Lane]:
        """A lane of one's own; waits until one is free."""
        lane = self._free.get()
        try:
            yield lane
        finally:
            lane.shrink()
            self._free.put(lane)

    def close(self) -> None:
        """Free those that nobody uses; the others go with the process."""
        while not self._free.empty():
            self._free.get_nowait().close()


class LaneReader:
    """The lanes at the side that reads.

    Args:
        descriptors: their files, in the order of their numbers.
    """

    def __init__(self, descriptors: Sequence[int]) -> None:
        self._descriptors = list(descriptors)
        self._maps: dict[int, mmap.mmap] = {}

    def read(self, lane: int, layout: PictureLayout) -> ResizedPicture:
        """A copy of the picture in a lane, which nobody else reads at the time."""
        mapped = self._maps.get(lane)
        if mapped is None or len(mapped) < layout.num_bytes:
            mapped = self._maps[lane] = mmap.mmap(self._descriptors[lane], layout.num_bytes, prot=mmap.PROT_READ)
        pixels = _pixels(mapped, layout).copy()
        parts = {box: ResizedPicture(pixels[index], (box[2] - box[0], box[3] - box[1])) for index, box in enumerate(layout.boxes, start=1)}
        return ResizedPicture(pixels[0], layout.size, parts)


def _pixels(mapped: mmap.mmap, layout: PictureLayout) -> NDArray[np.uint8]:
    """The mapped pixels, ``[picture and tiles, height, width, 3]``."""
    flat = np.frombuffer(mapped, np.uint8, layout.num_bytes)
    return flat.reshape(1 + len(layout.boxes), layout.height, layout.width, 3)


def _anonymous_file() -> int:
    """The descriptor of a file without a name, in memory where the system has such files."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("florence2-lane")
    with tempfile.TemporaryFile(prefix="florence2-lane-") as file:
        return os.dup(file.fileno())
