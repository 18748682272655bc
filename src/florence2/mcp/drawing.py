"""The picture of a call with its answers drawn on it, small enough for a conversation.

In: a picture and the results about it. Out: the bytes of a JPEG of bounded size. Knows nothing of the protocol.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from florence2.draw.drawing import draw_on
from florence2.draw.fonts import Fonts
from florence2.results import Result

if TYPE_CHECKING:
    from PIL.Image import Image

MIME_TYPE = "image/jpeg"
MAX_BYTES = 600_000  # hosts take about a megabyte for an answer, and base64 adds a third
MAX_SIDES = (1024, 768, 512, 256)
_QUALITY = 85


def drawn(picture: Image, results: Sequence[Result]) -> bytes:
    """The picture with the answers on it as a JPEG of at most ``MAX_BYTES``."""
    result, data = merged(results), b""
    for side in MAX_SIDES:
        small = picture.copy()
        small.thumbnail((side, side))
        canvas = draw_on(small, result, Fonts(None))
        canvas.thumbnail((2 * side, 2 * side))  # a long text makes it taller
        file = io.BytesIO()
        canvas.save(file, "JPEG", quality=_QUALITY)
        data = file.getvalue()
        if len(data) <= MAX_BYTES:
            break
    return data


def merged(results: Sequence[Result]) -> Result:
    """One result with the objects of several about the same image, to be drawn at once."""
    if len(results) == 1:
        return results[0]
    objects = [found for result in results for found in result.objects]
    scores = [found.score for found in objects if found.score is not None]
    are_boxes = all(found.kind == "box" for found in objects)
    return replace(
        results[0],
        kind="boxes" if are_boxes else "polygons",
        boxes=[list(map(round, found.box)) for found in objects] if are_boxes else [],
        quads=[],
        polygons=[] if are_boxes else [[list(map(round, outline)) for outline in found.outlines] for found in objects],
        labels=[found.label for found in objects],
        bins=[],
        scores=scores if len(scores) == len(objects) else None,
        label_scores=None,
        location_scores=None,
    )
