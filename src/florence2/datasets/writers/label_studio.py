"""Label Studio: tasks with predictions, and the configuration of the project that shows them.

In: a labelled set. Out: ``tasks.json``, ``labelling.xml``, and the pictures in ``images``. Pictures are named as Label Studio serves local
files, ``/data/local-files/?d=images/…``, relative to this folder as its root of documents. Coordinates are percents of the upright picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from florence2.datasets.labelled import LabelledSet
from florence2.datasets.writers.entries import Entries, Entry
from florence2.datasets.writers.json_writing import JsonList
from florence2.datasets.writers.names import portable_name
from florence2.datasets.writers.objects import WrittenObject
from florence2.datasets.writers.written import WriteOptions, Written
from florence2.datasets.writers.xml_writing import XmlFile

LOCAL_FILES = "/data/local-files/?d="
_BOX, _OUTLINE, _TEXT, _IMAGE = "box", "outline", "text", "image"


def write(data: LabelledSet, folder: Path, options: WriteOptions) -> Written:
    """Write a labelled set for Label Studio, and return what was written."""
    entries = Entries(data, folder, options)
    fields: dict[str, str] = {}
    with closing(JsonList(folder)) as tasks:
        for entry in entries.placed(lambda picture: f"images/{portable_name(picture.name)}"):
            tasks.append(_task(entry, fields, options, str(data.info.get("model", "florence2"))))
        with (folder / "tasks.json").open("wb") as file:
            tasks.copy_to(file)
            file.write(b"\n")
    _write_configuration(folder / "labelling.xml", data, fields)
    return entries.written()


def _task(entry: Entry, fields: dict[str, str], options: WriteOptions, model: str) -> dict[str, Any]:
    """A task with what was found as its prediction; a new prompt gets the field of the project that holds its answers."""
    regions = [region for number, thing in enumerate(entry.objects, start=1) for region in _regions(number, thing, entry, options)]
    for prompt, text in entry.picture.texts.items():
        name = fields.setdefault(prompt, f"answer-{len(fields) + 1}")
        regions.append({"id": name, "type": "textarea", "from_name": name, "to_name": _IMAGE, "value": {"text": [text]}})
    scores = [thing.found.score for thing in entry.objects if thing.found.score is not None] if options.scores else []
    prediction = {"model_version": model, "result": regions} | ({"score": round(sum(scores) / len(scores), 6)} if scores else {})
    image = LOCAL_FILES + quote(entry.file.lstrip("/"), safe="/", errors="surrogatepass")
    about = {"name": entry.picture.name, "where": entry.picture.where, "split": entry.picture.split}
    return {"data": {"image": image, **about}, "predictions": [prediction]}


def _regions(number: int, thing: WrittenObject, entry: Entry, options: WriteOptions) -> Iterator[dict[str, Any]]:
    """The regions of an object: its outlines or its box, each with the text that was read there."""
    width, height = entry.picture.size
    score = {"score": round(thing.found.score, 6)} if options.scores and thing.found.score is not None else {}
    labels = [thing.found.label]
    shapes: list[tuple[str, str, dict[str, Any]]] = []
    for outline in thing.found.polygons if options.segments is not False else ():
        points = [[_percent(x, width), _percent(y, height)] for x, y in zip(outline[0::2], outline[1::2], strict=True)]
        shapes.append((_OUTLINE, "polygonlabels", {"points": points, "closed": True}))
    if not shapes:
        x1, y1, x2, y2 = thing.found.box
        place = {"x": _percent(x1, width), "y": _percent(y1, height), "rotation": 0}
        shapes.append((_BOX, "rectanglelabels", place | {"width": _percent(x2 - x1, width), "height": _percent(y2 - y1, height)}))
    about = {"to_name": _IMAGE, "original_width": width, "original_height": height, "image_rotation": 0}
    for part, (control, kind, value) in enumerate(shapes, start=1):
        region = {"id": f"object-{number}" + f"-{part}" * (len(shapes) > 1), **about}
        yield region | {"type": kind, "from_name": control, "value": value | {kind: labels}} | score
        if thing.found.text:
            yield region | {"type": "textarea", "from_name": _TEXT, "value": value | {"text": [thing.found.text]}}


def _percent(value: float, side: int) -> float:
    return round(100 * value / side, 4)


def _write_configuration(path: Path, data: LabelledSet, fields: dict[str, str]) -> None:
    with path.open("wb") as file:
        xml = XmlFile(file)
        with xml.element("View"):
            xml.leaf("Image", name=_IMAGE, value="$image", zoom="true")
            for tag, name in (("RectangleLabels", _BOX), ("PolygonLabels", _OUTLINE)) if data.classes else ():
                with xml.element(tag, name=name, toName=_IMAGE):
                    for label in data.classes:
                        xml.leaf("Label", value=label)
            if data.classes:
                xml.leaf("TextArea", name=_TEXT, toName=_IMAGE, perRegion="true", editable="true", displayMode="region-list")
            for prompt, name in fields.items():
                xml.leaf("Header", value=prompt)
                xml.leaf("TextArea", name=name, toName=_IMAGE, editable="true", rows="3")
