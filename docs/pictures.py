"""The pictures of README and docs: scenes with the demo model's answers, the answers themselves, and the chart of speed.

In: the demo model and ``benchmarks/results``. Out: files in ``docs/pictures``. What the model says is shown as it is; the README's
scene was chosen of nine for its looks. Beside the chart lie its numbers, by which a test sees that it is the chart of today's results.
Labels that are long, close to each other and in several scripts are written by hand, as a fine-tuned model would give them; they need
fonts for Korean and Japanese (on Debian fonts-nanum and fonts-ipafont-gothic).
"""

from __future__ import annotations

import dataclasses
import json
from math import cos, pi, sin
from pathlib import Path

import numpy as np
from PIL import Image

import florence2
from docs.figures import speed_chart
from florence2.engine.engine import Engine
from florence2.images import read_image
from florence2.results import Result
from florence2.scenes.scene import draw_scene
from florence2.scenes.world import WORLD

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "pictures"
QUESTIONS = {
    "scene_od": "<OD>",
    "scene_referring": "<REFERRING_EXPRESSION_SEGMENTATION>the star",
    "scene_ocr": "<OCR_WITH_REGION>",
    "scene_caption": "<CAPTION>",
}
OVERVIEW_SEED = (1_000_007, 27)  # training never draws from the first number
OVERVIEW_QUESTIONS = ("<OD>", "<REFERRING_EXPRESSION_SEGMENTATION>the purple star", "<OCR_WITH_REGION>", "<CAPTION>")
GAP = 12  # pixels between the pictures of the overview
# The bars of the chart: what is compared, its colour, its words.
BARS = (
    ("ours auto / transformers fp32", "#56B4E9", "bf16, than transformers fp32"),
    ("ours auto / transformers bf16", "#0072B2", "bf16, than transformers bf16"),
    ("ours int8 / transformers bf16", "#E69F00", "int8, than transformers bf16"),
)


def _circle(x: int, y: int, radius: int) -> list[int]:
    angles = [step * pi / 18 for step in range(36)]
    return [value for angle in angles for value in (round(x + radius * cos(angle)), round(y + radius * sin(angle)))]


LABELS = Result(
    "<DENSE_REGION_CAPTION>",
    "boxes",
    (480, 480),
    "",
    "",
    boxes=[[106, 2, 291, 169], [90, 136, 170, 214], [228, 90, 369, 231], [88, 250, 292, 314], [94, 140, 150, 214], [318, 340, 462, 452]],
    labels=[
        "다섯 개의 뾰족한 끝이 있는 노란 별",
        "weißer Kreis, von einem größeren Stern halb überdeckt",
        "紫色の円、星の右下",
        "the word FISH in white capital letters",
        "달걀",
        "naïve façade, Ελληνικά, Кириллица, عربي",
    ],
    scores=[0.97, 0.91, 0.88, 0.83, 0.42, 0.39],
)
MASKS = Result(
    "<REFERRING_EXPRESSION_SEGMENTATION>",
    "polygons",
    (480, 480),
    "",
    "",
    polygons=[
        [[194, 1, 222, 58, 289, 62, 241, 104, 257, 165, 199, 134, 148, 163, 156, 108, 105, 68, 169, 59]],
        [_circle(299, 161, 71)],
        [_circle(131, 174, 40)],
    ],
    labels=["노란 별", "紫色の円", "weißer Kreis"],
)


def main() -> None:
    """Ask, draw and write."""
    FOLDER.mkdir(exist_ok=True)
    for name, labels in (("labels", LABELS), ("masks", MASKS)):
        labels.annotate(ROOT / "examples" / "scene.png").save(FOLDER / f"{name}.png", optimize=True)
    with florence2.load("florence-2-demo", device="cpu", precision="fp32") as engine:
        _write_answers(engine)
        scene = draw_scene(
            np.random.default_rng(OVERVIEW_SEED), size=480, options=dataclasses.replace(WORLD, num_objects=(5, 5), num_words=(2, 2))
        ).image
        pictures = [florence2.draw.annotate(scene, engine.run(scene, prompt)) for prompt in OVERVIEW_QUESTIONS]
    _overview(pictures).save(FOLDER / "overview.png", optimize=True)
    _write_chart()


def _write_answers(engine: Engine) -> None:
    """The example's scene with each answer on it; the answers go to a file."""
    picture = read_image(ROOT / "examples" / "scene.png")
    answers = {}
    for name, prompt in QUESTIONS.items():
        result = engine.run(picture, prompt)
        florence2.draw.annotate(picture, result).save(FOLDER / f"{name}.png", optimize=True)
        answers[prompt] = result.to_dict()
    (FOLDER / "answers.json").write_text(json.dumps(answers, indent=1) + "\n", encoding="utf-8")


def _overview(pictures: list[Image.Image]) -> Image.Image:
    """The pictures two by two; a phone shows them at half a screen each."""
    width = max(picture.width for picture in pictures)
    upper, lower = (max(picture.height for picture in row) for row in (pictures[:2], pictures[2:]))
    whole = Image.new("RGB", (2 * width + GAP, upper + GAP + lower), "white")
    for index, picture in enumerate(pictures):
        whole.paste(picture, (index % 2 * (width + GAP), index // 2 * (upper + GAP)))
    return whole


def _write_chart() -> None:
    """Times faster than the reference, a group of bars for each case, and the numbers in a file."""
    from matplotlib.figure import Figure

    numbers = speed_chart()
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(BARS)
    for place, (key, colour, words) in enumerate(BARS):
        found = {row: ratios[key] for row, ratios in enumerate(numbers.values()) if key in ratios}
        bars = axes.barh([row + (place - 1) * height for row in found], list(found.values()), height, color=colour, label=words)
        axes.bar_label(bars, fmt="%.1f", padding=3, fontsize=9)
    axes.set_yticks(range(len(numbers)), list(numbers), fontsize=10)
    axes.invert_yaxis()
    axes.axvline(1, color="#1A1A1A", linewidth=1)
    axes.set_xlabel("times faster (1: as fast as transformers)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    figure.savefig(FOLDER / "speed.png", dpi=150, metadata={"Software": None})
    (FOLDER / "speed.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
