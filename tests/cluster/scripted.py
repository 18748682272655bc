"""A model for workers of a cluster that answers after a while, or ends its process, as the pictures' widths tell it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fixtures.fake_engine import answer_to
from florence2.labelling.options import LabelOptions
from florence2.openmp import SPIN
from florence2.results import Result
from florence2.tasks.prompt import parse_prompt

CAPACITY = 16
SECONDS = 0.1
DEADLY = 666
DEADLY_ONCE = 667
LOG = "FLORENCE2_TEST_LOG"


class Scripted:
    """An ``AnsweringModel`` that notes how many pictures are with it whenever one comes."""

    capacity = CAPACITY

    def __init__(self, log: Path, seconds: float = SECONDS) -> None:
        self._log, self._seconds, self._num, self._lock = log, seconds, 0, threading.Lock()
        log.with_name(SPIN).write_text(os.environ.get(SPIN, "unset"))

    def ask(self, picture: Any, prompts: Sequence[str], file: Path | None) -> list[Result]:
        """See ``AnsweringModel``."""
        width, _ = picture.size
        with self._lock:
            self._num += 1
            with self._log.open("a") as log:
                log.write(f"{os.getpid()} {self._num} {width} {time.monotonic():.3f}\n")
        if width == DEADLY or (width == DEADLY_ONCE and self._is_first(width)):
            os._exit(3)
        time.sleep(self._seconds * (0.5 + width % CAPACITY / CAPACITY))  # not all at the same time
        with self._lock:
            self._num -= 1
        return [answer_to(parse_prompt(prompt).bind(picture.size), picture.size, scores=True) for prompt in prompts]

    def close(self, *, cancel: bool) -> None:
        """See ``AnsweringModel``."""

    def _is_first(self, width: int) -> bool:
        return sum(line.split()[2] == str(width) for line in self._log.read_text().splitlines()) == 1


def load(log: Path, seconds: float, choice: Any, num_threads: int, options: LabelOptions, num_prompts: int) -> tuple[Scripted, str]:
    """As ``florence2.cluster.labelling.load_model``, but for the first two arguments."""
    return Scripted(log, seconds), "0" * 64
