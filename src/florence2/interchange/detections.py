"""An answer as ``supervision.Detections``.

In: the objects of a result with their classes, and the picture's size. Out: boxes, masks, confidences and corners, one row an object in the
order of generation. Needs the package ``supervision``, which no extra brings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from florence2.errors import InvalidOption
from florence2.extras import requires_package
from florence2.interchange.classed import Classed, Classes, Coordinates, classed, has_no_objects
from florence2.outlines import Outline, ordered

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from florence2.results import Result

_NAMES, _CORNERS = "class_name", "xyxyxyxy"  # where supervision's annotators look for them


def detections_of(result: Result, classes: Classes | None, coordinates: Coordinates) -> Any:
    """The objects of a result as ``supervision.Detections``; arguments and errors as of ``Result.to_supervision``."""
    with requires_package("supervision", "Result.to_supervision"):
        from supervision import Detections  # pyright: ignore[reportMissingImports]
    if has_no_objects(result):
        raise InvalidOption(f"an answer to {result.task:.80} is a text and has no detections: read result.text", field="task")
    found = classed(result, classes, 0, coordinates)
    if not found:
        empty = Detections.empty()
        empty.data = {_NAMES: np.empty(0, dtype=str)}
        return empty
    shapes = [each.found for each in found]
    quads = [shape.quad for shape in shapes if shape.quad is not None]
    corners = {_CORNERS: np.array(quads, dtype=np.float32).reshape(-1, 4, 2)} if quads else {}
    return Detections(
        xyxy=np.array([ordered(shape.box) for shape in shapes], dtype=np.float32),
        mask=masks_of([shape.polygons for shape in shapes], result.image_size) if shapes[0].polygons else None,
        confidence=_confidence(found),
        class_id=np.array([each.class_id for each in found], dtype=int),
        data={_NAMES: np.array([each.name for each in found]), **corners},
    )


def masks_of(objects: Sequence[Sequence[Outline]], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels within the outlines of each object or on them, ``[objects, height, width]``; an outline of two points has none.

    Args:
        objects: the outlines of each object in pixels.
        size: width and height of the picture.
    """
    masks = np.empty((len(objects), size[1], size[0]), dtype=bool)
    for mask, outlines in zip(masks, objects, strict=True):
        drawn = Image.new("1", size)
        pen = ImageDraw.Draw(drawn)
        for outline in outlines:
            if len(outline) >= 6:
                pen.polygon(outline[: len(outline) // 2 * 2], fill=1)
        mask[:] = np.asarray(drawn)
    return masks


def _confidence(found: Sequence[Classed]) -> NDArray[np.float32] | None:
    """The scores; None where there are none, or not for each object."""
    scores = [each.found.score for each in found]
    return None if None in scores else np.array(scores, dtype=np.float32)
