"""A picture with its labels as one row, for formats whose readers take rows of nested values.

In: an entry. Out: a dictionary of plain values with the same keys and types for every picture.
"""

from __future__ import annotations

from typing import Any

from florence2.datasets.writers.entries import Entry
from florence2.datasets.writers.objects import WrittenObject
from florence2.datasets.writers.written import WriteOptions


def row_of(entry: Entry, options: WriteOptions) -> dict[str, Any]:
    """The row: name, origin, size, objects with boxes x1, y1, x2, y2 in pixels, texts and examples."""
    picture = entry.picture
    return {
        "name": picture.name,
        "where": picture.where,
        "width": picture.size[0],
        "height": picture.size[1],
        "objects": [_object(thing, options) for thing in entry.objects],
        "texts": [{"prompt": prompt, "text": text} for prompt, text in picture.texts.items()],
        "examples": [{"prompt": prompt, "answer": answer} for prompt, answer in picture.examples],
    }


def _object(thing: WrittenObject, options: WriteOptions) -> dict[str, Any]:
    found = thing.found
    return {
        "label": found.label,
        "class_id": thing.class_id,
        "box": list(found.box),
        "polygons": [list(outline) for outline in found.polygons] if options.segments is not False else [],
        "score": round(found.score, 6) if options.scores and found.score is not None else None,
        "text": found.text,
        "task": found.task,
    }
