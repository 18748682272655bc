"""The README's pictures: ``examples/scene.png`` with the demo model's answers, and the answers themselves."""

from __future__ import annotations

import json
from pathlib import Path

import florence2
from florence2.images import read_image

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "pictures"
QUESTIONS = {
    "scene_od": "<OD>",
    "scene_referring": "<REFERRING_EXPRESSION_SEGMENTATION>the star",
    "scene_ocr": "<OCR_WITH_REGION>",
    "scene_caption": "<CAPTION>",
}


def main() -> None:
    """Ask, draw and write; what the model says is shown as it is."""
    FOLDER.mkdir(exist_ok=True)
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
