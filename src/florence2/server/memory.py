"""Memory that the C library keeps once it was freed: given back to the system after large bodies, and kept from piling up.

glibc keeps what was freed in its heaps, one for each of several threads: after 64 bodies of 19 MB at once, more than a gigabyte stayed
with the process. ``FreedMemory`` gives it back while the server is quiet; ``map_large_blocks`` lets blocks of a megabyte come from the
system and go back to it at once, which a process can do that computes nothing. Other C libraries are left alone. Pillow's blocks are kept
while pictures come in: a photo of 12 megapixels takes 48 MB of them, and pages that are new each time cost a tenth of its decoding.
"""

from __future__ import annotations

import asyncio
import ctypes
import sys
from collections.abc import Callable

from PIL import Image

LARGE_BYTES = 2**25
"""Bodies and pictures of so many bytes make it worth it to give memory back."""
EVERY_S = 5.0
_MMAP_THRESHOLD, _THRESHOLD_BYTES = -3, 2**20  # malloc.h
BLOCKS_PER_PICTURE = 4  # of 16 MiB each, for the largest picture that is decoded in the server's own process


def keep_picture_blocks(num_pictures: int) -> None:
    """Let Pillow use the memory of so many pictures again, until ``FreedMemory`` gives it back."""
    Image.core.set_blocks_max(BLOCKS_PER_PICTURE * num_pictures)


def map_large_blocks() -> None:
    """Let every large block be mapped, and unmapped when it is freed; nothing where there is no glibc.

    By itself glibc raises the size from which it does so to that of the largest block that was ever freed.
    """
    if (glibc := _glibc()) is not None:
        glibc.mallopt(_MMAP_THRESHOLD, _THRESHOLD_BYTES)


class FreedMemory:
    """Gives memory back once large bodies are gone.

    Args:
        num_bytes: how many bytes of bodies and pictures are held now.
        end_idle: ends processes that are not needed any more; called in a thread.
    """

    def __init__(self, num_bytes: Callable[[], int], end_idle: Callable[[], None] = lambda: None) -> None:
        self._num_bytes = num_bytes
        self._end_idle = end_idle
        self._most = 0

    def is_due(self) -> bool:
        """Whether much was held since memory was last given back, and less than half of it is held now."""
        held = self._num_bytes()
        self._most = max(self._most, held)
        if self._most < LARGE_BYTES or held > self._most / 2:
            return False
        self._most = held
        return True

    async def keep_giving_back(self) -> None:
        """Give memory back, whenever it is due, until cancelled."""
        glibc = _glibc()
        while True:
            for _ in range(10):  # to see how much is held in between
                await asyncio.sleep(EVERY_S / 10)
                self._most = max(self._most, self._num_bytes())
            await asyncio.to_thread(self._end_idle)
            if not self._num_bytes():
                Image.core.clear_cache()
            if self.is_due() and glibc is not None:
                await asyncio.to_thread(glibc.malloc_trim, 0)


def _glibc() -> ctypes.CDLL | None:
    """The C library; None where it is another one than glibc."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "malloc_trim") and hasattr(library, "mallopt") else None
