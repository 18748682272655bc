"""An answer as COCO has it: an image, its annotations and their categories.

In: a result. Out: dictionaries of plain numbers and texts that ``pycocotools`` reads, as a data set or, of the annotations, as results
(``loadRes``). ``shape_fields`` is also what the writer of COCO files takes. Needs no other library.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from florence2.errors import InvalidOption
from florence2.interchange.classed import Classed, Classes, Coordinates, class_names, classed, has_no_objects
from florence2.outlines import Box, Outline, ordered, outline_area

if TYPE_CHECKING:
    from florence2.results import Result

_DIGITS = 3


def coco_of(result: Result, image_id: int, annotation_id: int, classes: Classes | None, coordinates: Coordinates) -> dict[str, Any]:
    """A result as a COCO data set of one image; arguments and errors as of ``Result.to_coco``."""
    for field, given in (("image_id", image_id), ("annotation_id", annotation_id)):
        if not isinstance(given, int) or isinstance(given, bool):
            raise InvalidOption(f"{field} must be a whole number, got {given!r:.80}", field=field)
    images = [_image(result, image_id)]
    if has_no_objects(result):  # with categories, even with none, pycocotools looks for each annotation's
        return {"images": images, "annotations": [{"id": annotation_id, "image_id": image_id, "caption": result.text}]}
    found = classed(result, classes, 1, coordinates)
    annotations = [{"id": number, "image_id": image_id, **_annotation(each)} for number, each in enumerate(found, annotation_id)]
    categories = [{"id": number, "name": name, "supercategory": "none"} for number, name in class_names(classes, found, 1).items()]
    return {"images": images, "annotations": annotations, "categories": categories}


def shape_fields(box: Box, outlines: Sequence[Outline]) -> dict[str, Any]:
    """Where an object is, as an annotation has it: ``bbox``, ``area``, ``segmentation`` and ``iscrowd``.

    Args:
        box: x1, y1, x2, y2 in pixels.
        outlines: its outlines; those of fewer than three points are left out. Without any the area is that of the box.
    """
    x1, y1, x2, y2 = ordered(box)
    width, height = round(x2 - x1, _DIGITS), round(y2 - y1, _DIGITS)
    polygons = [list(outline[: len(outline) // 2 * 2]) for outline in outlines if len(outline) >= 6]
    area = sum(map(outline_area, polygons)) if polygons else width * height
    return {"bbox": [x1, y1, width, height], "area": round(area, _DIGITS), "segmentation": polygons, "iscrowd": 0}


def _annotation(each: Classed) -> dict[str, Any]:
    """An annotation without its own and its image's ids."""
    found = each.found
    fields = shape_fields(found.box, found.polygons or (() if found.quad is None else (found.quad,)))
    score = {} if found.score is None else {"score": found.score}
    return {"category_id": each.class_id, **fields, **score}


def _image(result: Result, image_id: int) -> dict[str, Any]:
    """The image, with the name of its file where the request gave a path."""
    width, height = result.image_size
    path = None if result.source is None else result.source.image
    named = {"file_name": os.path.basename(path)} if isinstance(path, str) else {}
    return {"id": image_id, **named, "width": width, "height": height}
