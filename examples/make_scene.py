"""How ``scene.png`` was made: one synthetic scene under a seed that training never draws from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from florence2.scenes.scene import LEXICON, draw_scene
from florence2.scenes.world import WORLD

SEED = (1_000_007, 4)


def main() -> None:
    """Draw the scene again; the file stays the same."""
    options = dataclasses.replace(WORLD, num_objects=(3, 3), num_words=(1, 1), lexicon=LEXICON[::2])
    scene = draw_scene(np.random.default_rng(SEED), size=480, options=options)
    scene.image.save(Path(__file__).parent / "scene.png", optimize=True)


if __name__ == "__main__":
    main()
