"""A model that answers at once, or fails as it is told, in place of an engine; and pictures to ask it about."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from PIL import Image

from fixtures.fake_engine import answer_to
from florence2.labelling.options import LabelOptions
from florence2.labelling.run import LabelSummary, label
from florence2.results import Result
from florence2.tasks.prompt import parse_prompt


class StandIn:
    """An engine, as far as a labelling run knows one.

    Attributes:
        asked: width of the picture and prompts of each call.
        before: called with both before an answer; what it raises is raised.
        most_at_once: the most calls at the same time.
    """

    num_beams = 1
    device = SimpleNamespace(type="cpu")

    def __init__(self, before: Callable[[int, Sequence[str]], object] = lambda width, prompts: None) -> None:
        self.checkpoint = SimpleNamespace(folder=Path("stand-in"))
        self.asked: list[tuple[int, tuple[str, ...]]] = []
        self.before = before
        self.most_at_once = self._at_once = 0
        self._lock = threading.Lock()

    def run_many(self, picture: Image.Image, prompts: Sequence[str], **options: Any) -> list[Result]:
        with self._lock:
            self.asked.append((picture.width, tuple(prompts)))
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            self.before(picture.width, prompts)
            return [answer_to(parse_prompt(prompt).bind(picture.size), picture.size, options["scores"]) for prompt in prompts]
        finally:
            with self._lock:
                self._at_once -= 1

    @property
    def widths(self) -> list[int]:
        return sorted(width for width, _ in self.asked)


def draw_pictures(folder: Path, count: int, first: int = 0) -> Path:
    """A folder with pictures; the number of each is its width less 20."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        Image.new("RGB", (20 + number, 16), (number % 256, 90, 40)).save(folder / f"{number:04}.png")
    return folder


OD = LabelOptions(tasks=("od",))


def run(folder: Path | Sequence[str], output: Path, model: Any, options: LabelOptions = OD, **more: Any) -> LabelSummary:
    return label(folder, output, options, engine=model, **more)


def journal_lines(output: Path, name: str = "journal.jsonl") -> list[dict[str, Any]]:
    """The records of a journal, in its order; each line is whole."""
    header, *lines = (output / ".florence2" / name).read_text().splitlines()
    assert json.loads(header)["version"] == 1
    return [json.loads(line) for line in lines]
