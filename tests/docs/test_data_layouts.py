"""Every tree of files on the page about data is built and read, in training and in evaluation."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from florence2.datasets.folders import part_of
from florence2.datasets.reader import read_dataset
from tests.docs.markdown import ROOT, fences
from tests.training.sets import write_pictures

PAGE = (ROOT / "docs" / "fine-tune.md").read_text(encoding="utf-8")
TREES = [fence.content.split() for fence in fences(PAGE) if fence.language == "text" and fence.content.startswith("export/")]
# Each tree has one picture to learn from, and one to hold out or to measure on.
LEARNT, APART = "a.jpg", "b.jpg"


def build(tree: list[str], home: Path) -> None:
    """The files of a tree, each with what files of its name hold."""
    folders = {Path(name).name: Path(name).parent for name in tree if name.endswith(".jpg")}
    assert set(folders) == {LEARNT, APART}
    for name in tree:
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = LEARNT if "train" in name or path.stem == "a" else APART
        if path.suffix == ".jpg":
            (png,) = write_pictures(path.parent, 1)
            (path.parent / png).rename(path)
        elif path.name == "data.yaml":
            parts = {"val" if picture == APART else "train": str(Path(*folder.parts[1:])) for picture, folder in folders.items()}
            path.write_text("names: [cat, dog]\n" + "".join(f"{part}: ../{folder}\n" for part, folder in parts.items()))
        elif path.suffix in (".names", ".labels") or path.name == "classes.txt":
            path.write_text("cat\ndog\n")
        elif path.parent.name == "Main":
            path.write_text(f"{Path(picture).stem}\n")
        elif path.stem in ("train", "valid"):
            path.write_text(f"data/{folders[picture].relative_to('export')}/{picture}\n")
        else:
            path.write_text(CONTENTS[path.suffix](picture))


def coco(picture: str) -> str:
    return json.dumps(
        {
            "images": [{"id": 1, "file_name": picture, "width": 80, "height": 60}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [8, 6, 32, 24]}],
            "categories": [{"id": 1, "name": "dog"}],
        }
    )


def voc(picture: str) -> str:
    box = "<bndbox><xmin>9</xmin><ymin>7</ymin><xmax>40</xmax><ymax>30</ymax></bndbox>"
    return f"<annotation><filename>{picture}</filename><object><name>dog</name>{box}</object></annotation>"


CONTENTS = {
    ".txt": lambda picture: "1 0.3 0.3 0.4 0.4\n",
    ".json": coco,
    ".xml": voc,
    ".csv": lambda picture: f"file_name,text\n{picture},dog\n",
    ".jsonl": lambda picture: json.dumps({"image": picture, "prefix": "<OD>", "suffix": "dog<loc_100><loc_100><loc_500><loc_1000>"}),
}


@pytest.mark.parametrize("tree", TREES, ids=lambda tree: tree[0].removeprefix("export/"))
def test_each_layout_is_read(tree: list[str], tmp_path: Path):
    build(tree, tmp_path)
    export = str(tmp_path / "export")
    has_parts = any(re.search("val|test", name) for name in tree)
    for for_training, pictures in ((True, [LEARNT]), (False, [APART])):
        records = read_dataset(export, for_training=for_training).sound()
        assert [Path(str(record.picture)).name for record in records] == (pictures if has_parts else [LEARNT, APART])
        assert all("dog" in record.answers[0] for record in records)
    assert (part_of(export, "valid") is not None) == any("val" in name for name in tree)


def test_the_table_names_each_layout_once():
    linked = re.findall(r"\| \[([^]]+)\]\(#", PAGE[PAGE.index("### Data sets as they are exported") :])
    headings = re.findall(r"^#### (.+)$", PAGE, re.MULTILINE)
    assert linked == headings
    assert len(TREES) >= len(headings)
