"""All formats of a run say the same: what is learnt from JSONL is what COCO holds, and files are the same byte for byte each time."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from florence2.datasets.reader import read_dataset
from florence2.datasets.writers import FORMATS
from florence2.labelling.class_names import read_class_map
from florence2.labelling.options import LabelOptions
from florence2.labelling.outputs import write_outputs
from florence2.tasks.coordinates import quantize
from tests.labelling.journals import answer, boxes, class_boxes, record, write_journal

SIZE = (200, 100)
LABELS = ["car", "größe <5", "two\nlines", "</s>", "Car", "a  b", "<loc_5>", "\ud800x", "자동차"]


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder = tmp_path / "pictures"
    for name in ("b.png", "a.png", "A.jpg", "sub/a.png", "é.png", "c.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE, "white").save(folder / name)
    return folder


def records(folder: Path, *questions: tuple[str, Callable[..., Any]]) -> list[dict[str, Any]]:
    """A record for each picture, each answer with a box of its own for each label."""
    found = []
    for number, path in enumerate(sorted(folder.rglob("*.*"))):
        placed = [(label, (10 * index, 5 * number, 10 * index + 9.7, 5 * number + 30), 0.9) for index, label in enumerate(LABELS)]
        answers = [answer(prompt, form(*placed)) for prompt, form in questions]
        name = path.relative_to(folder).as_posix()
        found.append(record(f"pictures/{name}", *answers, size=SIZE, name=name, root="pictures", path=str(path)))
    return found


def digest(folder: Path) -> dict[str, str]:
    """What each file below a folder holds."""
    files = [path for path in folder.rglob("*") if path.is_file() and ".florence2" not in path.parts]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def in_coco(folder: Path) -> dict[str, list[Any]]:
    """The labels and bins of each picture in a COCO folder, by its name."""
    found = defaultdict(list)
    for path in folder.rglob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        names = {one["id"]: Path(one["file_name"]).name for one in content["images"]}
        classes = {one["id"]: one["name"] for one in content["categories"]}
        for one in content["annotations"]:
            x, y, width, height = one["bbox"]
            found[names[one["image_id"]]].append((classes[one["category_id"]], tuple(quantize((x, y, x + width, y + height), SIZE))))
    return {name: sorted(things) for name, things in found.items()}


def in_jsonl(folder: Path) -> dict[str, list[Any]]:
    """The same of what ``florence2 train`` learns from a JSONL folder."""
    found = defaultdict(list)
    for part in ("train", "valid"):
        if (folder / part).is_dir():
            data = read_dataset(str(folder / part))
            assert not data.problems
            for one in data.records:
                things = zip(one.truth.labels, one.truth.boxes, strict=True)
                found[Path(str(one.picture)).name] += [(label, tuple(quantize(box, SIZE))) for label, box in things]
    return {name: sorted(things) for name, things in found.items()}


def test_what_is_learnt_is_what_coco_holds(tmp_path, pictures):
    options = LabelOptions(tasks=["od"], formats=["coco", "jsonl"], class_map=read_class_map(["a b=c"]), val_share=0.4, scores=True)
    folder = write_journal(tmp_path / "out", options.asked, *records(pictures, ("<OD>", boxes)))
    write_outputs(folder, options, lambda line: None)
    assert len(in_coco(folder / "coco")) == 6
    assert in_jsonl(folder / "jsonl") == in_coco(folder / "coco")


def test_classes_asked_one_by_one_are_one_detection(tmp_path, pictures):
    options = LabelOptions(classes=["truck", "car"], formats=["coco", "jsonl"], min_score=0.5)
    asked = [("<OPEN_VOCABULARY_DETECTION>car", class_boxes), ("<OPEN_VOCABULARY_DETECTION>truck", lambda *found: class_boxes(*found[:2]))]
    folder = write_journal(tmp_path / "out", options.asked, *records(pictures, *asked))
    write_outputs(folder, options, lambda line: None)
    assert in_jsonl(folder / "jsonl") == in_coco(folder / "coco")
    assert {label for things in in_coco(folder / "coco").values() for label, _ in things} == {"car", "truck"}
    categories = json.loads(next((folder / "coco").rglob("*.json")).read_text())["categories"]
    assert [one["name"] for one in categories] == ["truck", "car"]


def test_two_builds_are_the_same_whatever_the_order_of_the_journal(tmp_path, pictures):
    options = LabelOptions(tasks=["od,caption"], formats=list(FORMATS), val_share=0.4, images="copy")
    made = [{**one, "answers": [*one["answers"], answer("<CAPTION>", "a picture")]} for one in records(pictures, ("<OD>", boxes))]
    seen = []
    for number, order in enumerate((made, made[::-1], made)):
        folder = write_journal(tmp_path / ("first" if number != 1 else "second") / "out", options.asked, *order)
        write_outputs(folder, options, lambda line: None)
        seen.append(digest(folder))
    assert {name.partition("/")[0] for name in seen[0]} == set(FORMATS)
    assert seen[0] == seen[1] == seen[2]
