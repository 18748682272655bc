"""Documents, videos and animations, made by the libraries that read them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

RATE = 10


def shades(num: int, size: tuple[int, int] = (64, 48)) -> list[Image.Image]:
    """Grey pictures, each 20 lighter than the one before."""
    return [Image.new("RGB", size, (20 * index % 256,) * 3) for index in range(num)]


def shade_of(picture: Image.Image) -> int:
    """Which of the shades a picture has."""
    return round(np.asarray(picture).mean() / 20)


@pytest.fixture
def make_video(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a video of shades, ten frames a second; each is shown as often as ``each`` says."""

    def write(name: str, num: int = 12, *, each: int = 1, codec: str = "mpeg4", gop: int = 12, **options: str) -> Path:
        import av

        path = tmp_path / name
        with av.open(str(path), "w", options=options) as container:
            stream: Any = container.add_stream(codec, rate=RATE)
            stream.width, stream.height, stream.gop_size = 64, 48, gop
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            stream.options = {"sc_threshold": "1000000000"}  # key frames where ``gop`` says, and nowhere else
            for picture in (picture for picture in shades(num) for _ in range(each)):
                container.mux(stream.encode(av.VideoFrame.from_image(picture)))
            container.mux(stream.encode())
        return path

    return write


@pytest.fixture
def make_animation(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes shades as pages or frames of one file, by its suffix."""

    def write(name: str, num: int = 3, **options: Any) -> Path:
        first, *others = shades(num)
        first.save(tmp_path / name, save_all=True, append_images=others, **options)
        return tmp_path / name

    return write
