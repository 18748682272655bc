"""Images that were asked about lately: shared by content, bounded in bytes, the least recently used leave."""

from __future__ import annotations

import threading

import numpy as np
import torch

from florence2.engine.image_cache import ImageCache
from florence2.engine.request import SharedImage

SIZE = 3 * 4 * 4  # bytes of one picture


def picture(number: int) -> np.ndarray:
    return np.full((4, 4, 3), number, dtype=np.uint8)


def share(images: ImageCache, number: int) -> SharedImage:
    return images.share(picture(number))


def test_equal_content_is_one_image_and_is_counted():
    images = ImageCache(10 * SIZE)
    assert share(images, 1) is share(images, 1)
    assert share(images, 2) is not share(images, 1)
    assert (images.num_hits, images.num_misses, images.num_bytes) == (2, 2, 2 * SIZE)


def test_memory_that_is_given_back_is_no_more_kept():
    images = ImageCache(10 * SIZE)
    first = share(images, 1)
    images.give_back()
    assert images.num_bytes == 0
    assert share(images, 1) is not first
    assert first.pixels is not None


def test_the_least_recently_used_leave():
    images = ImageCache(2 * SIZE)
    first, second = share(images, 1), share(images, 2)
    assert share(images, 1) is first
    share(images, 3)
    assert share(images, 1) is first
    assert share(images, 2) is not second


def test_features_count_once_they_are_there():
    images = ImageCache(2 * SIZE)
    first = share(images, 1)
    first.features, first.pixels = torch.zeros(1, 4), None
    assert first.num_bytes == 16
    second = share(images, 2)
    assert share(images, 1) is first
    assert share(images, 2) is second


def test_one_that_is_too_large_is_answered_and_not_kept():
    images = ImageCache(SIZE - 1)
    assert share(images, 1) is not share(images, 1)


def test_zero_keeps_nothing():
    images = ImageCache(0)
    assert share(images, 1) is not share(images, 1)


def test_threads_get_the_same_image():
    images, found, start = ImageCache(100 * SIZE), [], threading.Barrier(8)

    def ask() -> None:
        start.wait()
        found.extend(share(images, number) for number in range(20))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(image) for image in found}) == 20
