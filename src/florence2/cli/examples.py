"""What the help of each command ends with: calls that work as they stand. Knows nothing of the options themselves."""

from __future__ import annotations

_CALLS: dict[str, tuple[str, ...]] = {
    "infer": (
        "florence2 infer photo.jpg -m florence-2-base -p '<CAPTION>'",
        "florence2 infer *.jpg -m florence-2-base -p '<OD>' --draw out",
        "florence2 infer page.png -m florence-2-base -p '<OCR>' --json",
    ),
    "models": ("florence2 models",),
    "pull": ("florence2 pull florence-2-base", "florence2 pull microsoft/Florence-2-large-ft@main"),
    "serve": (
        "florence2 serve -m florence-2-base",
        "florence2 serve -m florence-2-base --check",
        "florence2 serve -m cats=runs/cats/adapter --host 0.0.0.0 --api-keys-file keys.txt",
    ),
    "train": (
        "florence2 train -m florence-2-base -d cats.jsonl -o runs/cats",
        "florence2 train -m florence-2-base -d coco.json -i pictures -o runs/cats --freeze-vision",
        "florence2 train -m florence-2-base -d cats.jsonl -o runs/cats --resume",
    ),
    "evaluate": (
        "florence2 evaluate -m florence-2-base -d cats/test.jsonl",
        "florence2 evaluate -m florence-2-base -a runs/cats/adapter -d cats/test.jsonl",
    ),
}

# The sign keeps the lines as they are.
EXAMPLES = {name: "\b\nExamples:\n" + "\n".join(f"  {call}" for call in calls) for name, calls in _CALLS.items()}
