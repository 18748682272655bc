"""Pascal VOC: an XML file for each picture.

In: a labelled set. Out: ``JPEGImages``, ``Annotations``, the names of each part's pictures in ``ImageSets/Main``, and ``labelmap.txt``.
Boxes are whole pixels, counted from 1, the last one belonging to the box, as in VOC's own files. Text read and scores are attributes, as
CVAT writes them.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path, PurePosixPath

from florence2.datasets.labelled import LabelledSet
from florence2.datasets.writers.entries import Entries, Entry
from florence2.datasets.writers.names import flat_names, with_suffix
from florence2.datasets.writers.objects import WrittenObject
from florence2.datasets.writers.written import Notices, WriteOptions, Written
from florence2.datasets.writers.xml_writing import XmlFile

NO_OUTLINES = "outlines were left out: Pascal VOC has boxes alone"
NO_TEXTS = "texts about pictures were left out: Pascal VOC has no place for them"
NOT_MAPPED = "classes can't be named in labelmap.txt, whose fields colons separate, so that CVAT does not know them"
_PICTURES = "JPEGImages"


def write(data: LabelledSet, folder: Path, options: WriteOptions) -> Written:
    """Write a labelled set as Pascal VOC, and return what was written."""
    entries, flat = Entries(data, folder, options), flat_names(data)
    for each in ("Annotations", _PICTURES, "ImageSets/Main"):
        (folder / each).mkdir(parents=True)
    with ExitStack() as stack:
        lists = {"train": stack.enter_context((folder / "ImageSets/Main/train.txt").open("wb"))}
        for entry in entries.placed(lambda picture: f"{_PICTURES}/{with_suffix(flat(picture.name), '.jpg')}"):
            split, name = entry.picture.split, with_suffix(flat(entry.picture.name), ".xml")
            _write_annotation(folder / "Annotations" / name, entry, options)
            if split not in lists:
                lists[split] = stack.enter_context((folder / f"ImageSets/Main/{split}.txt").open("wb"))
            lists[split].write(f"{PurePosixPath(name).stem}\n".encode())
            entries.notices.add(NO_TEXTS, entry.picture.name, len(entry.picture.texts))
            if options.segments is not False:
                entries.notices.add(NO_OUTLINES, entry.picture.name, sum(bool(each.found.polygons) for each in entry.objects))
    (folder / "labelmap.txt").write_text(_label_map(data, entries.notices), encoding="utf-8", errors="replace", newline="")
    return entries.written()


def _label_map(data: LabelledSet, notices: Notices) -> str:
    """The classes as CVAT and datumaro need them, which know VOC's own twenty otherwise."""
    lines = ["# label:color_rgb:parts:actions\n"]
    for name in data.classes:
        if ":" in name or not name.isprintable() or name.startswith("#"):
            notices.add(NOT_MAPPED, name)
        else:
            lines.append(f"{name}:::\n")
    return "".join(lines)


def _write_annotation(path: Path, entry: Entry, options: WriteOptions) -> None:
    width, height = entry.picture.size
    with path.open("wb") as file:
        xml = XmlFile(file)
        with xml.element("annotation"):
            xml.leaf("folder", _PICTURES)
            xml.leaf("filename", PurePosixPath(entry.file).name)
            if options.images == "leave":
                xml.leaf("path", entry.file)
            with xml.element("source"):
                xml.leaf("database", entry.picture.where or entry.picture.name)
            with xml.element("size"):
                for tag, value in (("width", width), ("height", height), ("depth", 3)):
                    xml.leaf(tag, value)
            xml.leaf("segmented", 0)
            for thing in entry.objects:
                _write_object(xml, thing, entry.picture.size, options)


def _write_object(xml: XmlFile, thing: WrittenObject, size: tuple[int, int], options: WriteOptions) -> None:
    attributes = {"text": thing.found.text} if thing.found.text else {}
    if options.scores and thing.found.score is not None:
        attributes["score"] = f"{thing.found.score:.6f}"
    with xml.element("object"):
        xml.leaf("name", thing.found.label)
        for tag, value in (("pose", "Unspecified"), ("truncated", 0), ("difficult", 0)):
            xml.leaf(tag, value)
        with xml.element("bndbox"):
            for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), _pixels(thing, size), strict=True):
                xml.leaf(tag, value)
        if attributes:
            with xml.element("attributes"):
                for name, value in attributes.items():
                    with xml.element("attribute"):
                        xml.leaf("name", name)
                        xml.leaf("value", value)


def _pixels(thing: WrittenObject, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The first and last column and row of a box, counted from 1; at least one of each."""
    x1, y1, x2, y2 = thing.found.box
    left, top = min(round(x1) + 1, size[0]), min(round(y1) + 1, size[1])
    return left, top, max(round(x2), left), max(round(y2), top)
