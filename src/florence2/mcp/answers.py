"""What tools answer: typed values, of which the protocol's output schemas are made, and the same as text for people and models.

In: results of the engine. Out: a value of this module and its text. Coordinates are pixels of the original image, x before y. Knows nothing
of tools and of the protocol.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, Field

from florence2.results import FoundObject, Result

Numbers = list[int]


class ImageSize(BaseModel):
    """The size of the image after it was turned upright, in pixels."""

    width: int
    height: int


class Found(BaseModel):
    """One object or text that was located."""

    label: Annotated[str, Field(description="What it is, or the text that was read; empty where the task gives no label.")]
    box: Annotated[
        Numbers,
        Field(min_length=4, max_length=4, description="x1, y1, x2, y2 in pixels; around the quad or polygons, if any."),
    ]
    quad: Annotated[
        Numbers | None, Field(min_length=8, max_length=8, description="Four corners x1, y1, …, x4, y4 in pixels, of located text.")
    ] = None
    polygons: Annotated[
        list[Numbers] | None, Field(description="Outlines, each a flat list x, y, x, y, … in pixels; several where it is in parts.")
    ] = None
    score: Annotated[float | None, Field(description="How likely it is right, 0 to 1.")] = None


class Answer(BaseModel):
    """What every answer holds."""

    image: Annotated[ImageSize, Field(description="Size of the image in pixels, in which all coordinates are.")]
    model: Annotated[str, Field(description="The model that answered.")]
    is_complete: Annotated[bool, Field(description="False: the answer was cut off at the model's token limit.")]


class TextAnswer(Answer):
    """An answer in words."""

    text: str


class FoundAnswer(Answer):
    """Objects with their locations."""

    objects: list[Found]


class DetectedAnswer(FoundAnswer):
    """Objects with their locations, and what was looked for in vain."""

    not_found: Annotated[list[str] | None, Field(description="The classes of which no object was found; only with classes.")] = None


class ReadAnswer(TextAnswer):
    """Text that was read, with its places where these were asked for."""

    lines: Annotated[list[Found] | None, Field(description="Each piece of text with its place; only with places: true.")] = None


class AnyAnswer(Answer):
    """The answer to any prompt: words or objects."""

    task: Annotated[str, Field(description="The task's tag, or the beginning of a free prompt.")]
    text: Annotated[str | None, Field(description="The words, where the task answers with words.")] = None
    objects: Annotated[list[Found] | None, Field(description="Located objects, where the task locates any.")] = None


def found_in(results: Sequence[Result]) -> list[Found]:
    """The objects of some results, one result after the other."""
    return [_found(found) for result in results for found in result.objects]


def facts(results: Sequence[Result], model: str) -> dict[str, Any]:
    """The fields of ``Answer`` for some results about one image."""
    width, height = results[0].image_size
    is_complete = all(result.finish_reason == "stop" for result in results)
    return {"image": ImageSize(width=width, height=height), "model": model, "is_complete": is_complete}


def as_text(answer: Answer) -> str:
    """An answer in words, with everything that the structured one holds of what was found."""
    return "\n".join(_lines(answer))


def _lines(answer: Answer) -> Iterator[str]:
    text = getattr(answer, "text", None)
    objects = answer.lines if isinstance(answer, ReadAnswer) else getattr(answer, "objects", None)
    if text is not None:
        yield text.strip() or "(no text)"
    if objects is not None:
        one, many = ("piece of text", "pieces of text") if isinstance(answer, ReadAnswer) else ("object", "objects")
        end = "; x, y in pixels:" if objects else "."
        number = f"{len(objects)} {one if len(objects) == 1 else many}"
        yield f"{number} in the image of {answer.image.width} x {answer.image.height} pixels{end}"
        yield from (f"- {_line(found)}" for found in objects)
    if isinstance(answer, DetectedAnswer) and answer.not_found:
        yield f"Not found: {', '.join(answer.not_found)}"
    if not answer.is_complete:
        yield "(Cut off at the model's token limit: there may be more.)"


def _line(found: Found) -> str:
    places = [f"box {_joined(found.box)}"]
    if found.quad is not None:
        places = [f"corners {_joined(found.quad)}"]
    if found.polygons:
        places += [f"polygon {_joined(polygon)}" for polygon in found.polygons]
    if found.score is not None:
        places.append(f"score {found.score:.2f}")
    return f"{found.label or '(no label)'}: {'; '.join(places)}"


def _joined(numbers: Numbers) -> str:
    return ", ".join(map(str, numbers))


def _found(found: FoundObject) -> Found:
    return Found(
        label=found.label,
        box=_whole(found.box),
        quad=None if found.quad is None else _whole(found.quad),
        polygons=[_whole(outline) for outline in found.polygons] or None,
        score=None if found.score is None else round(found.score, 4),
    )


def _whole(coordinates: Sequence[float]) -> Numbers:
    return [round(value) for value in coordinates]
