"""A cache of encoded images, so that the next prompt on one of them does not encode it again.

In: the model's input as bytes, before normalisation. Out: a ``SharedImage``, the one that is there already or a new one. Equal input
has equal tokens, whatever file it came from, so this is the key, with the adapter where one changes how images are encoded. The least
recently used make room, by bytes. Knows nothing of models; the scheduler fills the images in.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from florence2.engine.request import SharedImage
from florence2.model.cpu.heap import give_back_memory

if TYPE_CHECKING:
    from florence2.model.adapters import ModelAdapter


class ImageCache:
    """The least recently used images make room, by bytes; safe to use from many threads.

    Args:
        max_bytes: the most that is kept; 0 keeps nothing.

    Attributes:
        num_hits: pictures that were known already.
        num_misses: pictures that were new.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[tuple[ModelAdapter | None, bytes], SharedImage] = OrderedDict()
        self._lock = threading.Lock()
        self.num_hits = self.num_misses = 0

    @property
    def num_bytes(self) -> int:
        """The memory of what is kept."""
        with self._lock:
            return sum(image.num_bytes for image in self._kept.values())

    def share(self, resized: NDArray[np.uint8], adapter: ModelAdapter | None = None) -> SharedImage:
        """The image with this content, encoded or soon to be.

        Args:
            resized: the picture at the model's size, ``[height, width, 3]``; kept as it is until it is encoded.
            adapter: the adapter of the request. The base and all adapters that encode images as it does share them.
        """
        encoder = adapter if adapter is not None and adapter.changes_images else None
        if not self._max_bytes:
            self.num_misses += 1
            return SharedImage(resized, adapter=encoder)
        key = encoder, hashlib.blake2b(resized.tobytes(), digest_size=16).digest()
        with self._lock:
            image = self._kept.get(key)
            if image is not None:
                self.num_hits += 1
                self._kept.move_to_end(key)
                return image
            self.num_misses += 1
            image = self._kept[key] = SharedImage(resized, adapter=encoder)
            self._make_room()
        return image

    def forget(self, adapter: ModelAdapter) -> None:
        """Drop the images that only this adapter encodes as it does."""
        with self._lock:
            for key in [key for key in self._kept if key[0] is adapter]:
                del self._kept[key]

    def give_back(self) -> None:
        """Free the memory of what is kept; images that requests hold stay with them."""
        with self._lock:
            self._kept.clear()
        give_back_memory()

    def _make_room(self) -> None:
        sizes = [image.num_bytes for image in self._kept.values()]
        too_many = sum(sizes) - self._max_bytes
        for size in sizes:
            if too_many <= 0:
                break
            self._kept.popitem(last=False)
            too_many -= size
