"""CVAT for images 1.1: one XML file with all pictures, boxes, outlines and texts.

In: a labelled set. Out: ``annotations.xml``, the pictures in ``images``, and ``labels.json``, which CVAT's editor of labels takes when a
task is made. Text read and scores are attributes; a text about a whole picture is a tag named ``caption`` with the attribute ``text``. The
parts of the data set are not told apart: datumaro leaves out pictures of a part that has not the file's name.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from florence2.datasets.labelled import LabelledSet
from florence2.datasets.writers.entries import Entries, Entry
from florence2.datasets.writers.json_writing import to_json
from florence2.datasets.writers.names import portable_name
from florence2.datasets.writers.objects import WrittenObject
from florence2.datasets.writers.written import WriteOptions, Written
from florence2.datasets.writers.xml_writing import HEADER, XmlFile

CAPTION = "caption"


def write(data: LabelledSet, folder: Path, options: WriteOptions) -> Written:
    """Write a labelled set for CVAT, and return what was written."""
    entries = Entries(data, folder, options)
    has_texts, number = False, 0
    with tempfile.TemporaryFile(dir=folder) as images:
        for entry in entries.placed(lambda picture: f"images/{portable_name(picture.name)}"):
            _write_image(XmlFile(images, depth=1), number, entry, options)
            has_texts, number = has_texts or bool(entry.picture.texts), number + 1
        labels = _labels(data, has_texts)
        images.seek(0)
        with (folder / "annotations.xml").open("wb") as file:
            file.write(HEADER + b"<annotations>\n")
            _write_about(XmlFile(file, depth=1), labels, number)
            shutil.copyfileobj(images, file)
            file.write(b"</annotations>\n")
    (folder / "labels.json").write_text(to_json(labels, indent=2) + "\n", encoding="utf-8", newline="")
    return entries.written()


def _labels(data: LabelledSet, has_texts: bool) -> list[dict[str, Any]]:
    """The labels that a task needs, in the form of CVAT's editor."""
    names = dict.fromkeys([*(name for name in data.classes if name.strip()), *[CAPTION] * has_texts])
    return [{"name": name, "type": "any", "attributes": [_attribute("text"), _attribute("score")]} for name in names]


def _attribute(name: str) -> dict[str, Any]:
    return {"name": name, "mutable": False, "input_type": "text", "default_value": "", "values": [""]}


def _write_about(xml: XmlFile, labels: list[dict[str, Any]], num_pictures: int) -> None:
    xml.leaf("version", "1.1")
    with xml.element("meta"), xml.element("task"):
        for tag, value in (("name", "florence2"), ("size", num_pictures), ("mode", "annotation")):
            xml.leaf(tag, value)
        with xml.element("labels"):
            for label in labels:
                with xml.element("label"):
                    xml.leaf("name", label["name"])
                    xml.leaf("type", label["type"])
                    with xml.element("attributes"):
                        for attribute in label["attributes"]:
                            _write_attribute(xml, attribute)


def _write_attribute(xml: XmlFile, attribute: Mapping[str, Any]) -> None:
    with xml.element("attribute"):
        for tag in ("name", "mutable", "input_type", "default_value"):
            xml.leaf(tag, attribute[tag])
        xml.leaf("values", "\n".join(attribute["values"]))


def _write_image(xml: XmlFile, number: int, entry: Entry, options: WriteOptions) -> None:
    width, height = entry.picture.size
    with xml.element("image", id=number, name=entry.file.removeprefix("images/"), width=width, height=height):
        for group, thing in enumerate(entry.objects, start=1):
            _write_object(xml, group, thing, options)
        for text in entry.picture.texts.values():
            with xml.element("tag", label=CAPTION, source="auto"):
                xml.leaf("attribute", text, name="text")


def _write_object(xml: XmlFile, group: int, thing: WrittenObject, options: WriteOptions) -> None:
    """Write a box, or its outlines, which form a group where there are several."""
    polygons = thing.found.polygons if options.segments is not False else ()
    shared = {"label": thing.found.label, "source": "auto", "occluded": 0}
    if not polygons:
        with xml.element("box", **shared, **dict(zip(("xtl", "ytl", "xbr", "ybr"), thing.found.box, strict=True)), z_order=0):
            _write_values(xml, thing, options)
    for outline in polygons:
        points = ";".join(f"{x},{y}" for x, y in zip(outline[0::2], outline[1::2], strict=True))
        with xml.element("polygon", **shared, points=points, z_order=0, **({"group_id": group} if len(polygons) > 1 else {})):
            _write_values(xml, thing, options)


def _write_values(xml: XmlFile, thing: WrittenObject, options: WriteOptions) -> None:
    if thing.found.text:
        xml.leaf("attribute", thing.found.text, name="text")
    if options.scores and thing.found.score is not None:
        xml.leaf("attribute", f"{thing.found.score:.6f}", name="score")
