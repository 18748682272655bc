"""Textured backgrounds in muted tones.

In: a random generator, the side of the picture and the textures to choose from. Out: a grainy canvas, the two colours that its
texture runs between, and its name. Knows nothing of what is drawn on it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from florence2.scenes.palette import Rgb, jittered

TONES: dict[str, Rgb] = {
    "light grey": (200, 200, 202),
    "dark grey": (78, 80, 84),
    "beige": (214, 200, 172),
    "olive": (112, 116, 84),
    "slate": (98, 114, 132),
}


def draw_background(rng: np.random.Generator, size: int, textures: Sequence[str]) -> tuple[Image.Image, list[Rgb], str]:
    """A textured canvas, its darkest and lightest colour, and its name."""
    texture, tone = textures[int(rng.integers(len(textures)))], tuple(TONES)[int(rng.integers(len(TONES)))]
    base = jittered(rng, TONES[tone], 8)
    step = int(rng.integers(18, 34))
    grain = np.frombuffer(rng.bytes(size * size), dtype=np.int8).reshape(size, size) * np.float32(rng.uniform(4, 20) / 256)
    # One grey layer around 128 and a table per channel: several times quicker than arithmetic on three channels.
    layer = Image.fromarray((TEXTURES[texture](rng, size) * np.float32(step) + grain + np.float32(128)).astype(np.uint8))
    canvas = Image.merge("RGB", [layer.point([min(255, max(0, value + level - 128)) for level in range(256)]) for value in base])
    extremes = [(base[0] + half, base[1] + half, base[2] + half) for half in (-step // 2, step // 2)]
    return canvas, extremes, f"{texture} {tone}"


def _ramp(size: int, angle: float) -> np.ndarray:
    """Heights from about -0.5 to 0.5 that rise along ``angle``."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    return axis[None, :] * np.float32(math.cos(angle)) + axis[:, None] * np.float32(math.sin(angle))


def _plain(rng: np.random.Generator, size: int) -> np.ndarray:
    return np.zeros((size, size), dtype=np.float32)


def _shaded(rng: np.random.Generator, size: int) -> np.ndarray:
    return np.clip(_ramp(size, rng.uniform(0, 2 * math.pi)) * np.float32(1.5), -0.5, 0.5)


def _striped(rng: np.random.Generator, size: int) -> np.ndarray:
    ramp = _ramp(size, rng.uniform(0, math.pi))
    wave = np.sin(ramp * np.float32(2 * math.pi * rng.uniform(4, 11)) + np.float32(rng.uniform(0, 6)))
    return np.clip(wave * 2, -0.5, 0.5)


def _checked(rng: np.random.Generator, size: int) -> np.ndarray:
    cells = np.floor((np.arange(size) / size + rng.uniform()) * rng.uniform(5, 12)).astype(np.int64)
    return ((cells[:, None] + cells[None, :]) % 2).astype(np.float32) - 0.5


def _blotchy(rng: np.random.Generator, size: int) -> np.ndarray:
    num_cells = int(rng.integers(5, 11))
    cells = Image.fromarray(rng.uniform(-0.8, 0.8, (num_cells, num_cells)).astype(np.float32))
    return np.clip(np.asarray(cells.resize((size, size), Image.Resampling.BICUBIC)), -0.5, 0.5)


TEXTURES = {"plain": _plain, "shaded": _shaded, "striped": _striped, "checked": _checked, "blotchy": _blotchy}
