"""Synthetic pictures that know their own truth: coloured shapes and printed words on textured backgrounds.

In: a random generator, the side of the picture and the options of a curriculum (how many shapes, how large, which words).
Out: a ``Scene`` with the picture and what was drawn on it, in pixels of that picture. The same generator state gives the
same scene. Knows nothing of tasks, prompts or location tokens: ``targets`` turns a scene into answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from florence2.datasets.boxes import Box
from florence2.errors import InvalidOption
from florence2.scenes.backgrounds import TEXTURES, draw_background
from florence2.scenes.palette import COLOURS, Rgb, brightness_apart, contrast, jittered
from florence2.scenes.placement import Cover, is_clear, overlap
from florence2.scenes.shapes import ALL_KINDS, KINDS, outlines
from florence2.scenes.text_rendering import FONTS, LEXICON, letter_ends, printed_ink

Point = tuple[float, float]

# Between the bands lies a gap that no shape falls into, so that a size word is never a matter of one pixel.
SIZE_BANDS: dict[str, tuple[float, float]] = {"small": (0.0, 0.18), "medium": (0.21, 0.32), "large": (0.37, 1.0)}

_MAX_DEGREES = {"circle": 0.0, "square": 8.0, "diamond": 8.0}
_OTHER_DEGREES = 12.0
_REGULAR = ("circle", "square")
_DUPLICATE_RATE = 0.1
_PLATE_RATE = 0.15
_WORD_MARGIN = 4 / 192
_MIN_OBJECT_CONTRAST = 165.0
_MIN_BRIGHTNESS_APART = 60.0
_SUPERSAMPLING = 4
_ATTEMPTS = 60


@dataclass(frozen=True)
class SceneOptions:
    """What a scene may hold; a curriculum hands over one of these per stage.

    Attributes:
        num_objects: fewest and most shapes.
        num_words: fewest and most printed words. A full picture may end up with fewer of either.
        kinds: names out of ``ALL_KINDS``; without a choice, those that the demo model knows.
        colours: names out of ``COLOURS``, for shapes and words.
        lexicon: the words that may be printed.
        number_rate: chance of a number from 0 to 99 in place of a word.
        object_size: smallest and largest longer side of a shape, as a fraction of the picture's side. Under about 0.1
            (19 of 192 pixels) the kinds can hardly be told apart.
        cap_height: smallest and largest height of a capital letter, as a fraction of the picture's side.
        max_overlap: largest intersection over union of two shapes' boxes; 0 keeps the shapes apart.
        max_word_degrees: largest rotation of a word; 0 keeps every word level.
        textures: names out of ``TEXTURES``.
        fonts: names out of ``FONTS``.

    Raises:
        InvalidOption: a range is upside down, or a name is none that can be drawn.
    """

    num_objects: tuple[int, int] = (1, 4)
    num_words: tuple[int, int] = (0, 2)
    kinds: Sequence[str] = KINDS
    colours: Sequence[str] = tuple(COLOURS)
    lexicon: Sequence[str] = LEXICON
    number_rate: float = 0.0
    object_size: tuple[float, float] = (0.1, 0.6)
    cap_height: tuple[float, float] = (14 / 192, 26 / 192)
    max_overlap: float = 0.2
    max_word_degrees: float = 0.0
    textures: Sequence[str] = ("plain", "shaded", "striped", "checked", "blotchy")
    fonts: Sequence[str] = FONTS

    def __post_init__(self) -> None:
        for name in ("num_objects", "num_words", "object_size", "cap_height"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise InvalidOption(f"expected {name} as (smallest, largest), both at least 0, got {(low, high)}", field=name)
        for name, known in (("kinds", ALL_KINDS), ("colours", COLOURS), ("textures", TEXTURES), ("fonts", FONTS)):
            chosen = getattr(self, name)
            unknown = sorted(set(chosen) - set(known))
            if unknown or not chosen:
                raise InvalidOption(f"expected {name} out of {', '.join(known)}; got {', '.join(unknown) or 'none'}", field=name)


@dataclass(frozen=True)
class SceneObject:
    """One shape, whole: also where a later shape covers part of it.

    Attributes:
        kind: name out of ``ALL_KINDS``.
        colour: name out of ``COLOURS``.
        size_word: small, medium or large, by the longer side of the box.
        polygon: outline in pixels, at most 12 vertices, clockwise. It begins at the same corner of a kind however the shape
            is turned: the top of a circle, triangle, star and diamond, the tip of an arrow, the notch of a heart, the upper horn
            of a moon, the left end of the top edge of a square and a cross.
        box: x1, y1, x2, y2 in pixels, around the outline.
    """

    kind: str
    colour: str
    size_word: str
    polygon: tuple[Point, ...]
    box: Box

    @property
    def label(self) -> str:
        """Colour and kind, such as "red circle"."""
        return f"{self.colour} {self.kind}"


@dataclass(frozen=True)
class SceneWord:
    """One printed word.

    Attributes:
        text: as printed.
        quad: its corners in pixels, clockwise from the text's own top left.
        box: x1, y1, x2, y2 around the quad.
        letter_ends: where each letter ends, as fractions of the word's width.
    """

    text: str
    quad: tuple[float, ...]
    box: Box
    letter_ends: tuple[float, ...] = ()


@dataclass(frozen=True)
class Scene:
    """A square RGB picture and its truth.

    Objects stand from the bottom one to the top one, words in no particular order; ``background`` names texture and tone,
    such as "striped light grey".
    """

    image: Image.Image
    objects: tuple[SceneObject, ...]
    words: tuple[SceneWord, ...]
    background: str


@dataclass(frozen=True)
class _Shape:
    """A shape in its place, before it is painted."""

    thing: SceneObject
    outline: np.ndarray
    rgb: Rgb


def draw_scene(rng: np.random.Generator, *, size: int = 192, options: SceneOptions | None = None) -> Scene:
    """A new scene of ``size`` x ``size`` pixels.

    Args:
        rng: where all chance comes from.
        size: side of the picture in pixels.
        options: what the scene may hold; None means the defaults.

    Raises:
        MissingExtra: words are wanted and the package that brings the fonts is not installed.
    """
    options = options or SceneOptions()
    canvas, tones, background = draw_background(rng, size, options.textures)
    words: list[SceneWord] = []
    for _ in range(_between(rng, options.num_words)):
        word = _print_word(rng, canvas, options, tones, [word.box for word in words])
        if word is not None:
            words.append(word)
    shapes = _place_shapes(rng, size, options, tones, [word.box for word in words])
    for shape in shapes:
        _paint(canvas, shape)
    return Scene(canvas, tuple(shape.thing for shape in shapes), tuple(words), background)


def _pick(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _between(rng: np.random.Generator, bounds: tuple[int, int]) -> int:
    return int(rng.integers(bounds[0], bounds[1] + 1))


def _colour(
    rng: np.random.Generator,
    options: SceneOptions,
    against: Sequence[Rgb],
    measure: Callable[[Rgb, Rgb], float],
    least: float,
    avoid: Set[str] = frozenset(),
) -> tuple[str, Rgb]:
    """A colour with enough contrast to all in ``against``, or else the one with the most contrast."""
    best, best_distance = ("", (0, 0, 0)), -2.0
    order: list[int] = rng.permutation(len(options.colours)).tolist()
    for name in (options.colours[index] for index in order):
        distance = -1.0 if name in avoid else min(measure(COLOURS[name], other) for other in against)
        if distance >= least:
            return name, jittered(rng, COLOURS[name], 12)
        if distance > best_distance:
            best, best_distance = (name, COLOURS[name]), distance
    return best


def _place_shapes(rng: np.random.Generator, size: int, options: SceneOptions, tones: Sequence[Rgb], taken: Sequence[Box]) -> list[_Shape]:
    """Shapes with their positions, in the order of painting; ``taken`` are boxes that they must not cover."""
    wanted = _between(rng, options.num_objects)
    shapes: list[_Shape] = []
    cover = Cover(size)
    low, high = options.object_size
    high = max(low, min(high, 1.15 / math.sqrt(max(wanted, 1))))
    for _ in range(wanted):
        kind, side = _pick(rng, options.kinds), _side(rng, low, high)
        most = _MAX_DEGREES.get(kind, _OTHER_DEGREES)
        stretch = 1.0 if kind in _REGULAR else rng.uniform(0.9, 1.1)
        fine, coarse = outlines(kind, degrees=rng.uniform(-most, most), stretch=stretch)
        reach = fine.max(axis=0).tolist()
        for _ in range(_ATTEMPTS):
            box = _somewhere(rng, size, reach[0] * side * size, reach[1] * side * size)
            is_free = is_clear(box, taken, 1.5 * _WORD_MARGIN * size) and _is_apart(box, shapes, options.max_overlap)
            centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
            if is_free and cover.admits(fine * (side * size) + centre):
                polygon = tuple((x, y) for x, y in (coarse * (side * size) + centre).tolist())
                colour, rgb = _shape_colour(rng, options, tones, shapes, kind, box)
                thing = SceneObject(kind, colour, _size_word(side), polygon, box)
                shapes.append(_Shape(thing, fine * (side * size) + centre, rgb))
                cover.add()
                break
            side = max(low, _settled(side * 0.96))
    return shapes


def _side(rng: np.random.Generator, low: float, high: float) -> float:
    """The longer side of a shape as a fraction of the picture: a random size word, then a random length within it."""
    bands = [(max(low, start), min(high, end)) for start, end in SIZE_BANDS.values() if start <= high and end >= low]
    if not bands:
        return low
    start, end = bands[int(rng.integers(len(bands)))]
    return float(rng.uniform(start, end))


def _settled(side: float) -> float:
    """``side``, or the end of the next smaller band if it is between two bands."""
    return max((min(side, end) for start, end in SIZE_BANDS.values() if start <= side), default=side)


def _size_word(side: float) -> str:
    return next((word for word, (_, end) in SIZE_BANDS.items() if side <= end + 1e-6), "large")


def _somewhere(rng: np.random.Generator, size: int, half_width: float, half_height: float) -> Box:
    """A box of these half sides anywhere in the picture, a pixel away from its edge where there is room."""
    centre_x, centre_y = (half + 1 + rng.random() * max(0.0, size - 2 * half - 2) for half in (half_width, half_height))
    return centre_x - half_width, centre_y - half_height, centre_x + half_width, centre_y + half_height


def _shape_colour(
    rng: np.random.Generator, options: SceneOptions, tones: Sequence[Rgb], others: Sequence[_Shape], kind: str, box: Box
) -> tuple[str, Rgb]:
    """A colour with contrast to the background of a box and, usually, not that of another shape of the same kind."""
    near = [other.rgb for other in others if not is_clear(box, [other.thing.box], 0.0)]
    may_repeat = rng.uniform() < _DUPLICATE_RATE
    avoid = frozenset() if may_repeat else {other.thing.colour for other in others if other.thing.kind == kind}
    return _colour(rng, options, [*tones, *near], contrast, _MIN_OBJECT_CONTRAST, avoid)


def _is_apart(box: Box, shapes: Sequence[_Shape], max_overlap: float) -> bool:
    if max_overlap == 0:
        return is_clear(box, [shape.thing.box for shape in shapes], 1.0)
    return all(overlap(box, shape.thing.box) <= max_overlap for shape in shapes)


def _paint(canvas: Image.Image, shape: _Shape) -> None:
    """Fill a shape with its colour, edges smoothed."""
    x1, y1, x2, y2 = shape.thing.box
    left, top = math.floor(x1), math.floor(y1)
    width, height = math.ceil(x2) - left, math.ceil(y2) - top
    mask = Image.new("L", (width * _SUPERSAMPLING, height * _SUPERSAMPLING))
    vertices = (shape.outline - (left, top)) * _SUPERSAMPLING - 0.5
    ImageDraw.Draw(mask).polygon(vertices.ravel().tolist(), fill=255)
    canvas.paste(shape.rgb, (left, top), mask.reduce(_SUPERSAMPLING))


def _print_word(
    rng: np.random.Generator, canvas: Image.Image, options: SceneOptions, tones: Sequence[Rgb], taken: Sequence[Box]
) -> SceneWord | None:
    """Print one word clear of the boxes in ``taken``; None where it found no room."""
    word = _pick(rng, options.lexicon)
    text = (word, word.title(), word.upper())[int(rng.integers(3))]
    if options.number_rate and rng.uniform() < options.number_rate:
        text = str(int(rng.integers(100)))
    cap_height = round(rng.uniform(*options.cap_height) * canvas.width)
    degrees = rng.uniform(-1, 1) * options.max_word_degrees
    font = _pick(rng, options.fonts)
    ink, corners = printed_ink(text, font, cap_height, degrees)
    margin = _WORD_MARGIN * canvas.width
    reach_x, reach_y = (corners.max(axis=0) + margin).tolist()
    if max(reach_x, reach_y) * 2 > canvas.width:
        return None
    for _ in range(_ATTEMPTS):
        room = _somewhere(rng, canvas.width, reach_x, reach_y)
        if is_clear(room, taken, margin):
            left, top = round((room[0] + room[2] - ink.width) / 2), round((room[1] + room[3] - ink.height) / 2)
            quad = corners + np.array([left + ink.width / 2, top + ink.height / 2])
            against = [_plate(rng, canvas, room)] if rng.uniform() < _PLATE_RATE else tones
            canvas.paste(_colour(rng, options, against, brightness_apart, _MIN_BRIGHTNESS_APART)[1], (left, top), ink)
            (x1, y1), (x2, y2) = quad.min(axis=0).tolist(), quad.max(axis=0).tolist()
            return SceneWord(text, tuple(quad.ravel().tolist()), (x1, y1, x2, y2), letter_ends(text, font, cap_height))
    return None


def _plate(rng: np.random.Generator, canvas: Image.Image, box: Box) -> Rgb:
    """Put a plain plate on the canvas and give back its colour."""
    shade = int(rng.integers(225, 250)) if rng.uniform() < 0.5 else int(rng.integers(20, 45))
    ImageDraw.Draw(canvas).rectangle(box, fill=(shade, shade, shade))
    return shade, shade, shade
