"""What ``make run`` shows: several tasks on one picture, the answers as JSON, and pictures with the answers drawn in."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import florence2
from florence2.outputs import new_folder

HERE = Path(__file__).parent
QUESTIONS = {
    "caption": {"prompt": "<CAPTION>"},
    "detailed_caption": {"prompt": "<DETAILED_CAPTION>"},
    "detection": {"prompt": "<OD>", "scores": True},
    "text": {"prompt": "<OCR>"},
    "text_with_regions": {"prompt": "<OCR_WITH_REGION>"},
    "grounding": {"prompt": "<CAPTION_TO_PHRASE_GROUNDING>", "text": "{first} and {second}"},
    "segmentation": {"prompt": "<REFERRING_EXPRESSION_SEGMENTATION>", "text": "the {first}"},
    "region": {"prompt": "<REGION_TO_DESCRIPTION>", "region": "{first_box}"},
}


def main() -> None:
    """Ask, print and draw; the checkpoint is the one named on the command line, or the demo."""
    name = sys.argv[1] if len(sys.argv) > 1 else "florence-2-demo"
    picture, out = HERE / "scene.png", new_folder(HERE / "out")
    started = time.perf_counter()
    with florence2.load(name) as engine:
        print(f"{name} ready on {engine.device} after {time.perf_counter() - started:.1f} s", file=sys.stderr)
        found = engine.run(picture, "<OD>")
        first, second = [*found.labels, "circle", "square"][:2]
        box = found.boxes[0] if found.boxes else (0, 0, *found.image_size)
        for title, question in QUESTIONS.items():
            arguments: dict[str, Any] = dict(question)
            if "text" in arguments:
                arguments["text"] = arguments["text"].format(first=first, second=second)
            if "region" in arguments:
                arguments["region"] = tuple(box)
            result = engine.run(picture, **arguments)
            print(json.dumps(result.to_dict(), ensure_ascii=False))
            result.draw().save(out / f"{title}.png")
    print(f"drawn: {out}/*.png", file=sys.stderr)


if __name__ == "__main__":
    main()
