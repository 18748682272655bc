"""Journals of labelling runs, written line by line as a run writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def answer(prompt: str, response: Any, finish_reason: str = "stop") -> dict[str, Any]:
    """An answer as it stands in a record; ``response`` is what stands under the task's tag."""
    tag = prompt.partition(">")[0] + ">"
    return {"prompt": prompt, "response": {tag: response}, "text": "", "finish_reason": finish_reason}


def boxes(*found: tuple[Any, ...]) -> dict[str, Any]:
    """What a task with boxes answers, of (label, box) or (label, box, score)."""
    scores = {"scores": [one[2] for one in found]} if found and len(found[0]) > 2 else {}
    return {"bboxes": [list(one[1]) for one in found], "labels": [one[0] for one in found], **scores}


def class_boxes(*found: tuple[Any, ...]) -> dict[str, Any]:
    """The same of open vocabulary detection."""
    answered = boxes(*found)
    return {"bboxes_labels": answered.pop("labels"), "polygons": [], "polygons_labels": [], **answered}


def record(name: str, /, *answers: Mapping[str, Any], size: Sequence[int] = (640, 480), **fields: Any) -> dict[str, Any]:
    """A picture's line."""
    known = {"id": name, "name": name, "root": "", "path": f"/pictures/{name}", "file": None, "url": None, "part": None}
    return {**known, "size": list(size), "answers": list(answers), **fields}


def write_journal(folder: Path, asked: Mapping[str, Any], *records: Mapping[str, Any], name: str = "journal.jsonl") -> Path:
    """The run's folder, with a journal of these records."""
    state = folder / ".florence2"
    state.mkdir(parents=True, exist_ok=True)
    lines = [{"version": 1, "asked": dict(asked), "model": "florence-2-demo"}, *records]
    (state / name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder
