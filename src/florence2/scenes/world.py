"""The scenes that ``florence-2-demo`` knows: smaller than what the generator can draw.

Constants alone: the side of the pictures, the words and fonts that it reads, and the options of its scenes.
"""

from __future__ import annotations

from florence2.scenes.scene import LEXICON, SceneOptions

IMAGE_SIZE = 224
# Words that it can learn to read in a few hours on two cores.
WORDS = LEXICON[:40:2]
LETTERS = (18 / 192, 32 / 192)
FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono-Bold", "DejaVuSerif", "DejaVuSerif-Bold")


def world_options(num_objects: tuple[int, int], num_words: tuple[int, int], smallest: float) -> SceneOptions:
    """Options of scenes with these words and fonts.

    Args:
        num_objects: fewest and most shapes.
        num_words: fewest and most printed words.
        smallest: the smallest longer side of a shape, as a fraction of the picture's side.
    """
    return SceneOptions(
        num_objects=num_objects,
        num_words=num_words,
        object_size=(smallest, 0.6),
        cap_height=LETTERS,
        lexicon=WORDS,
        number_rate=0.2,
        fonts=FONTS,
    )


# The demo is trained on shapes from a twentieth of the side on, and promises those from a tenth on.
WORLD = world_options((1, 8), (0, 2), 0.1)
