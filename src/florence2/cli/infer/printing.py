"""Answers on standard output: lines for people, grouped by image, or one JSON object for each image and question.

In: an image with its answers, and where their drawings are. Out: text that is there before the next image is answered. Errors
were reported on standard error before, and only JSON repeats them. Knows nothing of engines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from florence2.cli.infer.answers import Answer, ImageAnswers
from florence2.console import json_line, name_of, shown
from florence2.errors import Florence2Error
from florence2.inputs.input import Input
from florence2.results import FoundObject, Result

CUT = "cut at the token limit"
NOTHING = "nothing found"


def print_json(answered: ImageAnswers, drawings: Sequence[Path | None], model: str) -> None:
    """One line for each question."""
    for answer, drawing in zip(answered.answers, drawings, strict=True):
        print(json_line(record_of(answered.image, answered.size, answer, drawing, model)), flush=True)


def print_lines(answered: ImageAnswers, drawings: Sequence[Path | None]) -> None:
    """The answers for people; nothing for an image without any."""
    lines = list(_lines(answered, drawings))
    if lines:
        print("\n".join(shown(line) for line in lines), flush=True)


def record_of(image: Input, size: tuple[int, int] | None, answer: Answer, drawing: Path | None, model: str) -> dict[str, Any]:
    """One answer as a JSON object."""
    question, outcome = answer.question, answer.outcome
    record: dict[str, Any] = {
        "image": name_of(image.name),
        "part": None if image.part is None else image.part.to_dict(),
        "prompt": question.prompt,
        "text": question.text,
        "region": question.region,
        "size": size,
        "model": model,
    }
    if isinstance(outcome, Florence2Error):
        record["error"] = {"code": outcome.code, "message": outcome.message}
    else:
        record["seconds"] = None if answer.seconds is None else round(answer.seconds, 4)
        record |= {"finish_reason": outcome.finish_reason, "response": outcome.to_dict()}
    record["drawing"] = None if drawing is None else name_of(drawing)
    return {name: value for name, value in record.items() if value is not None}


def title_of(image: Input, size: tuple[int, int]) -> str:
    """An image on one line for people."""
    return f"{image.shown} ({size[0]} x {size[1]})"


def object_line(found: FoundObject) -> str:
    """An object on one line for people."""
    score = "" if found.score is None else f"  {found.score:.3f}"
    where = [list(polygon) for polygon in found.polygons] or list(found.quad or found.box)
    return f"{found.label or '-'}{score}  {where}"


def _lines(answered: ImageAnswers, drawings: Sequence[Path | None]) -> Iterator[str]:
    """One image's answers: below its name and prompt, or with several prompts below its name and then each prompt."""
    results = [(answer, drawing) for answer, drawing in zip(answered.answers, drawings, strict=True) if isinstance(answer.outcome, Result)]
    if not results or answered.size is None:
        return
    title = title_of(answered.image, answered.size)
    is_one = len(answered.answers) == 1
    if not is_one:
        yield title
    for answer, drawing in results:
        assert isinstance(answer.outcome, Result)
        margin = "" if is_one else "  "
        cut = f", {CUT}" if answer.outcome.finish_reason == "length" else ""
        yield f"{title + ' ' if is_one else margin}{answer.question.title}{cut}"
        yield from (f"{margin}  {line}" for line in _body(answer.outcome))
        if drawing is not None:
            yield f"{margin}  drawn: {drawing}"


def _body(result: Result) -> Iterator[str]:
    """What was found."""
    if result.kind == "text":
        yield from result.text.split("\n")
        return
    if not result.objects:
        yield NOTHING
    yield from map(object_line, result.objects)
