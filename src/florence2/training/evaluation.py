"""How well a model answers about scenes it has never seen.

In: an engine and a seed. Scenes are drawn under that seed, asked about, and the answers held against what was drawn. Out:
one figure between 0 and 1 for each measure, with the number of things measured. Seeds up to ``FIRST_FREE_SEED`` belong to
training. Knows the public face of the engine; nothing of models or weights.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from florence2.engine.engine import Engine
from florence2.results import Result
from florence2.training.scenes import Scene, SceneOptions, draw_scene
from florence2.training.targets import Example, make_targets, truth

FIRST_FREE_SEED = 1_000_000
ASKED = ("<OD>", "<CAPTION>", "<OCR>", "<REFERRING_EXPRESSION_SEGMENTATION>", "<REGION_TO_CATEGORY>", "<REGION_TO_OCR>")
MIN_OVERLAP = 0.5


@dataclass(frozen=True)
class Measure:
    """A mean over what was measured."""

    value: float
    count: int


def evaluate(
    engine: Engine, *, num_scenes: int, seed: int, options: SceneOptions, size: int = 192, **generation: Any
) -> dict[str, Measure]:
    """Ask about ``num_scenes`` new scenes and measure the answers.

    Measures: ``od_recall`` and ``od_precision`` (label exactly right and intersection over union of at least 0.5),
    ``caption_objects`` (captions that name exactly the shapes that are there, each in its colour), ``ocr_words`` (printed
    words that are read exactly), ``ocr_characters`` (1 - edit distance over length), ``segmentation_iou`` (mean intersection
    over union of masks), ``region_category`` and ``region_words`` (answers that are exactly right).

    Args:
        engine: answers by ``submit``.
        num_scenes: how many scenes.
        seed: at least ``FIRST_FREE_SEED``.
        options: what the scenes hold.
        size: side of the scenes in pixels.
        generation: options of ``submit``, such as ``num_beams``.

    Raises:
        ValueError: the seed is one that training may have drawn from.
    """
    if seed < FIRST_FREE_SEED:
        raise ValueError(f"seeds under {FIRST_FREE_SEED} belong to training; got {seed}")
    values: dict[str, list[float]] = defaultdict(list)
    for number in range(num_scenes):
        rng = np.random.default_rng([seed, number])
        scene = draw_scene(rng, size=size, options=options)
        asked = [examples[0] for tag, examples in make_targets(scene, rng).items() if tag in ASKED and examples]
        futures = [_submit(engine, scene, example, generation) for example in asked]
        for example, future in zip(asked, futures, strict=True):
            _measure(example, future.result(), scene, values)
    return {name: Measure(float(np.mean(numbers)), len(numbers)) for name, numbers in sorted(values.items()) if numbers}


def _submit(engine: Engine, scene: Scene, example: Example, generation: dict[str, Any]) -> Future[Result]:
    return engine.submit(scene.image, example.prompt, **generation)


def _measure(example: Example, result: Result, scene: Scene, values: dict[str, list[float]]) -> None:
    there: Any = truth(scene)
    if example.tag == "<OD>":
        wanted = [(thing["label"], thing["box"]) for thing in there["objects"]]
        found = list(zip(result.labels, result.boxes, strict=True))
        hits = num_hits(wanted, found)
        values["od_recall"] += [1.0] * hits + [0.0] * (len(wanted) - hits)
        values["od_precision"] += [1.0] * hits + [0.0] * (len(found) - hits)
    elif example.tag == "<CAPTION>" and scene.objects:
        values["caption_objects"].append(float(_named_things(result.text) == _named_things(example.answer)))
    elif example.tag == "<OCR>" and scene.words:
        wanted_words, read = example.answer.split(), Counter(result.text.split())
        values["ocr_words"] += [float(count <= read[word]) for word, count in _numbered(wanted_words)]
        values["ocr_characters"].append(max(0.0, 1 - edit_distance(example.answer, result.text) / len(example.answer)))
    elif example.tag == "<REFERRING_EXPRESSION_SEGMENTATION>":
        thing = next(thing for thing in there["objects"] if example.text.endswith((thing["label"], f"the {thing['kind']}")))
        outlines = [outline for polygons in result.polygons for outline in polygons]
        values["segmentation_iou"].append(mask_overlap([thing["polygon"]], outlines, scene.image.size))
    elif example.tag == "<REGION_TO_CATEGORY>":
        values["region_category"].append(float(result.text.split("<loc_")[0].strip() == example.answer))
    elif example.tag == "<REGION_TO_OCR>":
        values["region_words"].append(float(result.text.strip() == example.answer))


def num_hits(wanted: Sequence[tuple[str, Sequence[float]]], found: Sequence[tuple[str, Sequence[float]]]) -> int:
    """How many wanted (label, box) pairs have a found one of their own with the same label and enough overlap."""
    left, hits = list(found), 0
    for label, box in wanted:
        rivals = [(box_overlap(box, other), index) for index, (name, other) in enumerate(left) if name == label]
        overlap, index = max(rivals, default=(0.0, -1))
        if overlap >= MIN_OVERLAP:
            del left[index]
            hits += 1
    return hits


def box_overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes x1, y1, x2, y2."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union


def mask_overlap(wanted: Sequence[Sequence[float]], found: Sequence[Sequence[float]], size: tuple[int, int]) -> float:
    """Intersection over union of the areas inside two sets of flat x, y outlines, counted in pixels."""
    one, other = _mask(wanted, size), _mask(found, size)
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 0.0


def edit_distance(a: str, b: str) -> int:
    """Fewest insertions, deletions and replacements of characters that turn ``a`` into ``b``."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, start=1):
        previous, row[0] = row[0], i
        for j, right in enumerate(b, start=1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (left != right))
    return row[-1]


def _mask(outlines: Sequence[Sequence[float]], size: tuple[int, int]) -> np.ndarray:
    mask = Image.new("L", size)
    for outline in outlines:
        if len(outline) >= 6:
            ImageDraw.Draw(mask).polygon([float(value) for value in outline], fill=255)
    return np.asarray(mask) > 0


def _named_things(caption: str) -> Counter[str]:
    """The phrases of a caption, in any order: "a red circle and a blue star" names a red circle and a blue star."""
    phrases = caption.replace(" and ", ", ").split(", ")
    return Counter(phrase.strip().removeprefix("an ").removeprefix("a ") for phrase in phrases)


def _numbered(words: Sequence[str]) -> list[tuple[str, int]]:
    """Each word with how often it has come so far, itself included."""
    seen: Counter[str] = Counter()
    numbered = []
    for word in words:
        seen[word] += 1
        numbered.append((word, seen[word]))
    return numbered
