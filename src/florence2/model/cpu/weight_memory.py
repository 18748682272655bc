"""Memory for weights that are read from beginning to end at each step: huge pages, which are read faster, where the system has them.

Knows nothing of layers.
"""

from __future__ import annotations

import contextlib
import math
import mmap
from collections.abc import Sequence

import torch
from torch import Tensor

CHUNK = 1 << 26  # bytes that are asked for at once; what is not written to takes no memory
LEAST = 1 << 16  # bytes; what is smaller lies elsewhere, as a model of such layers is small
ALIGNMENT = 64


class WeightMemory:
    """Memory for the weights of one model, which is given back with the last of them. A layer alone is often smaller than a huge page."""

    def __init__(self) -> None:
        self._chunk: mmap.mmap | None = None
        self._size = self._used = 0

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A tensor with any values."""
        num_bytes = math.prod(shape) * dtype.itemsize
        if num_bytes < LEAST or not hasattr(mmap, "MADV_HUGEPAGE"):
            return torch.empty(*shape, dtype=dtype)
        if self._chunk is None or self._used + num_bytes > self._size:
            self._size = max(CHUNK, num_bytes)
            self._chunk, self._used = mmap.mmap(-1, self._size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), 0
            with contextlib.suppress(OSError):  # a kernel without huge pages
                self._chunk.madvise(mmap.MADV_HUGEPAGE)
        tensor = torch.frombuffer(self._chunk, dtype=dtype, count=math.prod(shape), offset=self._used)
        self._used += -(-num_bytes // ALIGNMENT) * ALIGNMENT
        return tensor.view(*shape)
