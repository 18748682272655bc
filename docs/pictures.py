"""The README's pictures: ``examples/scene.png`` with the demo model's answers, and the answers themselves.

And what labels look like that are long, close to each other and in several scripts; these are written by hand, as a fine-tuned model
would give them. They need fonts for Korean and Japanese (on Debian fonts-nanum and fonts-ipafont-gothic).
"""

from __future__ import annotations

import json
from math import cos, pi, sin
from pathlib import Path

import florence2
from florence2.images import read_image
from florence2.results import Result

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "pictures"
QUESTIONS = {
    "scene_od": "<OD>",
    "scene_referring": "<REFERRING_EXPRESSION_SEGMENTATION>the star",
    "scene_ocr": "<OCR_WITH_REGION>",
    "scene_caption": "<CAPTION>",
}


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
    """Ask, draw and write; what the model says is shown as it is."""
    FOLDER.mkdir(exist_ok=True)
    for name, labels in (("labels", LABELS), ("masks", MASKS)):
        labels.annotate(ROOT / "examples" / "scene.png").save(FOLDER / f"{name}.png", optimize=True)
    picture = read_image(ROOT / "examples" / "scene.png")
    answers = {}
    with florence2.load("florence-2-demo", device="cpu", precision="fp32") as engine:
        for name, prompt in QUESTIONS.items():
            result = engine.run(picture, prompt)
            florence2.draw.annotate(picture, result).save(FOLDER / f"{name}.png", optimize=True)
            answers[prompt] = result.to_dict()
    (FOLDER / "answers.json").write_text(json.dumps(answers, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
