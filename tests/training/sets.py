"""Small data sets on disk, for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from florence2.cli import main


def write_pictures(folder: Path, count: int = 3, size: tuple[int, int] = (80, 60)) -> list[str]:
    """Pictures 0.png, 1.png, … of noise; their names."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return [f"{number}.png" for number in range(count)]


def write_jsonl(path: Path, lines: list[Any]) -> Path:
    """One line each: a text as it is, anything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines), encoding="utf-8")
    return path


def write_coco(path: Path, **changes: Any) -> Path:
    """Two pictures of 80 x 60 with three boxes of two classes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_pictures(path.parent, 2)
    content = {
        "images": [{"id": 1, "file_name": "0.png", "width": 80, "height": 60}, {"id": 2, "file_name": "1.png", "width": 80, "height": 60}],
        "annotations": [
            {"id": 10, "image_id": 1, "category_id": 5, "bbox": [40, 10, 20, 30], "area": 600, "iscrowd": 0},
            {"id": 11, "image_id": 1, "category_id": 7, "bbox": [8.25, 6, 24, 12], "area": 288, "iscrowd": 0},
            {"id": 12, "image_id": 1, "category_id": 7, "bbox": [0, 0, 80, 60], "area": 4800, "iscrowd": 1},
        ],
        "categories": [{"id": 5, "name": "cat"}, {"id": 7, "name": "dog"}],
    }
    path.write_text(json.dumps({**content, **changes}), encoding="utf-8")
    return path


def command(*words: object) -> int:
    """Run ``florence2 …`` in this process; the exit code."""
    try:
        main([str(word) for word in words])
    except SystemExit as end:
        return int(end.code or 0)
    return 0
