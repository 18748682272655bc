"""Answers as dictionaries, read into the fields of a ``Result``.

In: what ``Result.to_dict`` gave, the JSON of a server's answer, or a line of the command line. Out: fields, or what can't be read. Knows
nothing of what a result does with them.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from florence2.errors import InvalidOption

if TYPE_CHECKING:
    from florence2.results import Kind


class Unreadable(ValueError):
    """A dictionary has the form of an answer, and something in it is none."""


def answer_fields(value: str | Mapping[str, Any]) -> dict[str, Any]:
    """What an answer's dictionary has under its task, as fields of a ``Result``: kind, text, coordinates, labels and scores.

    Raises:
        ValueError: a coordinate or score is no number, or a shape has too few.
        AttributeError, KeyError, TypeError: it is no such dictionary.
    """
    if isinstance(value, str):
        return {"kind": "text", "text": value}
    kind: Kind
    if "bboxes_labels" in value:
        kind, labels = "boxes_or_polygons", value["polygons_labels"] if value["polygons"] else value["bboxes_labels"]
    else:
        kind, labels = ("quads" if "quad_boxes" in value else "polygons" if "polygons" in value else "boxes"), value["labels"]
    scores = value.get("scores")
    return {
        "kind": kind,
        "text": "",
        "labels": list(labels),
        "boxes": [_numbers(box, "a box", 4) for box in value.get("bboxes", ())],
        "quads": [_numbers(quad, "a quad", 8) for quad in value.get("quad_boxes", ())],
        "polygons": [[_numbers(ring, "a polygon") for ring in rings] for rings in value.get("polygons", ())],
        "scores": None if scores is None else _numbers(scores, "the list of scores"),
    }


def unwrapped(answer: Any) -> tuple[Any, Any, dict[str, Any]]:
    """The task's dictionary in a server's answer or a line of the command line; what that says of size and generation besides."""
    if not isinstance(answer, Mapping) or "response" not in answer:
        return answer, None, {}
    image = answer.get("image")
    size = [image.get(side) for side in ("width", "height")] if isinstance(image, Mapping) else answer.get("size")
    ended = {"finish_reason": answer["finish_reason"]} if "finish_reason" in answer else {}
    return answer["response"], size, {**ended, **generated_fields(answer.get("raw"))}


def generated_fields(raw: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a server says under ``raw`` of what the model generated, as fields of a ``Result``."""
    if not raw:
        return {}
    return {"raw": str(raw["text"]), **{name: raw[name] for name in ("token_ids", "finish_reason", "log_probability") if name in raw}}


def _numbers(given: Any, what: str, count: int | None = None) -> list[Any]:
    """Finite numbers of Python, of those of any library."""
    if isinstance(given, str) or not hasattr(given, "__iter__"):
        raise Unreadable(f"{what} is a list of numbers, got {repr(given)[:80]}")
    numbers = [value.item() if hasattr(value, "item") else value for value in given]
    if not all(isinstance(number, (int, float)) and math.isfinite(number) for number in numbers):
        raise Unreadable(f"{what} has finite numbers, got {repr(numbers)[:80]}")
    if count is not None and len(numbers) != count:
        raise Unreadable(f"{what} has {count} numbers, got {repr(numbers)[:80]}")
    return numbers


def size_of(given: Any) -> tuple[int, int]:
    """Width and height, of any library's integers."""
    try:
        width, height = (operator.index(length) for length in given)
    except (TypeError, ValueError):
        width = height = 0
    if width < 1 or height < 1:
        raise InvalidOption(f"give image_size=(width, height) of the original image in pixels; got {repr(given)[:80]}", field="image_size")
    return width, height
