"""The pictures of a load test: files, each read once, or drawn scenes of which no two that are sent have the same pixels.

In: paths, or a number and a size. Out: ``Pictures``, which has the base64 text of each one in a moment, while the test runs. A drawn scene
gets noise, so that its JPEG is as large as a photograph's, and is sent in variants: a few entries of its quantization table are one
higher, so that another picture is decoded, and no server can answer from a cache. Knows nothing of servers.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec

import numpy as np
from PIL import Image

from florence2.errors import InvalidImage, InvalidOption
from florence2.image_files import format_of
from florence2.inputs.find import find_inputs
from florence2.scenes.scene import draw_scene
from florence2.scenes.world import WORLD

QUALITY = 85
_NOISE = 6.0  # standard deviation, of 255
_LARGEST_SCENE = 1024  # larger pictures are scenes of this side, enlarged
_HEAD_BYTES = 600  # a multiple of 3; the tables of a JPEG of Pillow's lie in it
_TABLE = b"\xff\xdb"
_FIRST_ENTRY, _NUM_ENTRIES = 3, 16  # of the luminance table, in zigzag order: low frequencies, which survive any resizing
NUM_VARIANTS = 2**_NUM_ENTRIES


@dataclass(frozen=True)
class Picture:
    """One picture as it is sent.

    Attributes:
        media_type: such as ``image/jpeg``.
        head: the beginning of the file.
        tail64: the rest of it in base64.
        table: where the luminance table's entries begin in ``head``; None where there are no variants.
    """

    media_type: str
    head: bytes
    tail64: bytes
    table: int | None = None

    def base64(self, variant: int = 0) -> bytes:
        """The file in base64; each variant below ``NUM_VARIANTS`` has other pixels, where the picture has variants."""
        if not variant or self.table is None:
            return base64.b64encode(self.head) + self.tail64
        head = bytearray(self.head)
        for bit in range(_NUM_ENTRIES):
            head[self.table + _FIRST_ENTRY + bit] += variant >> bit & 1
        return base64.b64encode(head) + self.tail64

    @property
    def num_bytes(self) -> int:
        """The size of the file."""
        return len(self.head) + len(base64.b64decode(self.tail64))


@dataclass(frozen=True)
class Pictures:
    """All pictures of a test.

    Attributes:
        pictures: them, in the order in which they are sent.
        source: what they are, for reports.
        are_varied: whether each request gets a variant of its own.
    """

    pictures: tuple[Picture, ...]
    source: str
    are_varied: bool

    @property
    def mean_bytes(self) -> float:
        """The mean size of the files."""
        return sum(one.num_bytes for one in self.pictures) / len(self.pictures)


def read_pictures(words: Sequence[str], notice: Callable[[str], None]) -> Pictures:
    """The files that are named, as they are.

    Args:
        words: files, folders, patterns.
        notice: called with a line for what was left out.

    Raises:
        InvalidRequest: there is none, or one of them can't be sent.
    """
    found = find_inputs(words, (), notice)
    pictures = []
    for one in found:
        if one.error is not None:
            raise one.error
        if one.kind != "file" or one.medium in ("pdf", "video"):
            raise InvalidOption(f"{one.shown} can't be sent: give files with pictures, or folders of them", field="images")
        try:
            data = one.path.read_bytes()
        except OSError as error:
            raise InvalidImage(f"{one.shown} can't be read: {error.strerror or error}") from None
        pictures.append(_picture(data, f"image/{(format_of(data) or 'jpeg').lower()}"))
    return Pictures(tuple(pictures), f"{len(pictures)} {'file' if len(pictures) == 1 else 'files'}", are_varied=False)


def draw_pictures(count: int, size: tuple[int, int], seed: int, on_progress: Callable[[int], None] = lambda _: None) -> Pictures:
    """Drawn scenes with noise, as JPEG, each request with pixels of its own.

    Args:
        count: how many are drawn; any number of requests get variants of them.
        size: width and height in pixels.
        seed: where all chance comes from.
        on_progress: called with the number of pictures drawn so far.
    """
    pictures = []
    for number in range(count):
        pictures.append(_varied(_draw(np.random.default_rng([seed, number]), size)))
        on_progress(number + 1)
    return Pictures(tuple(pictures), f"{count} drawn, {size[0]}x{size[1]} pixels", are_varied=True)


def _draw(rng: np.random.Generator, size: tuple[int, int]) -> bytes:
    """A scene of the kind that ``florence-2-demo`` knows, with noise, cut to a size."""
    side = max(size)
    options = WORLD if find_spec("matplotlib") else replace(WORLD, num_words=(0, 0))  # words need its fonts
    scene = draw_scene(rng, size=min(side, _LARGEST_SCENE), options=options).image
    left, top = ((side - length) // 2 for length in size)
    picture = scene.resize((side, side), Image.Resampling.BILINEAR).crop((left, top, left + size[0], top + size[1]))
    noise = rng.standard_normal((size[1], size[0], 1), dtype=np.float32) * _NOISE
    noisy = np.clip(np.asarray(picture, dtype=np.float32) + noise, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def _varied(data: bytes) -> Picture:
    table = data.index(_TABLE, 0, _HEAD_BYTES) + len(_TABLE) + 3  # behind its length and its number
    return replace(_picture(data, "image/jpeg"), table=table)


def _picture(data: bytes, media_type: str) -> Picture:
    return Picture(media_type, data[:_HEAD_BYTES], base64.b64encode(data[_HEAD_BYTES:]))
