"""A cache of encoded images, so that the next prompt on one of them does not encode it again.

In: the model's input as bytes, before normalisation. Out: a ``SharedImage``, the one that is there already or a new one. Equal input
has equal tokens, whatever file it came from, so this is the key, with the adapter where one changes how images are encoded. The least
recently used make room, by bytes. Knows nothing of models; the scheduler fills the images in.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from florence2.engine.request import SharedImage

if TYPE_CHECKING:
    from torch import Tensor

    from florence2.model.adapters import ModelAdapter


class ImageCache:
    """The least recently used images make room, by bytes; safe to use from many threads.

    Args:
        max_bytes: the most that is kept; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[tuple[ModelAdapter | None, bytes], SharedImage] = OrderedDict()
        self._lock = threading.Lock()

    def share(self, resized: NDArray[np.uint8], normalise: Callable[[], Tensor], adapter: ModelAdapter | None = None) -> SharedImage:
        """The image with this content, encoded or soon to be.

        Args:
            resized: the picture at the model's size, ``[height, width, 3]``.
            normalise: makes the model's input of it; called only where the image is new.
            adapter: the adapter of the request. The base and all adapters that encode images as it does share them.
        """
        encoder = adapter if adapter is not None and adapter.changes_images else None
        if not self._max_bytes:
            return SharedImage(normalise(), adapter=encoder)
        key = encoder, hashlib.blake2b(resized.tobytes(), digest_size=16).digest()
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
                return kept
        new = SharedImage(normalise(), adapter=encoder)
        with self._lock:
            image = self._kept.setdefault(key, new)  # another thread may have been quicker
            self._make_room()
        return image

    def forget(self, adapter: ModelAdapter) -> None:
        """Drop the images that only this adapter encodes as it does."""
        with self._lock:
            for key in [key for key in self._kept if key[0] is adapter]:
                del self._kept[key]

    def _make_room(self) -> None:
        sizes = [image.num_bytes for image in self._kept.values()]
        too_many = sum(sizes) - self._max_bytes
        for size in sizes:
            if too_many <= 0:
                break
            self._kept.popitem(last=False)
            too_many -= size
