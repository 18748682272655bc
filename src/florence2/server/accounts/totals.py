"""Sums of what was used, by key, model and day: made of the journal's records, added up, written by ``usage.py``. Knows no files."""

from __future__ import annotations

import datetime
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

MAX_MODEL_CHARS = 300
MAX_CODE_CHARS = 100
NAMES = ("requests", "images", "prompt_tokens", "answer_tokens", "compute_s")


@dataclass(frozen=True)
class Record:
    """What one request used.

    Attributes:
        at: when it ended, in seconds since 1970.
        key_name: whose it was.
        model: the canonical id of its model; "" where it was refused before that was known.
        requests: 1; 0 for one of which no image was answered.
        images: how many were answered.
        prompt_tokens: tokens of prompts and images.
        answer_tokens: tokens generated.
        compute_s: the seconds of the engine that it took.
        codes: the errors of the request and of its images.
    """

    at: int
    key_name: str
    model: str
    requests: int = 0
    images: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    compute_s: float = 0.0
    codes: tuple[str, ...] = ()

    def to_line(self) -> bytes:
        """The record as a line of a journal."""
        values = (self.at, self.key_name, self.model[:MAX_MODEL_CHARS], *(getattr(self, name) for name in NAMES), self.codes)
        return json.dumps(values, separators=(",", ":")).encode("ascii") + b"\n"


def read_line(line: bytes) -> Record | None:
    """The record of a line; None: it is not whole, as where a disk was full."""
    try:
        *values, codes = json.loads(line)
        record = Record(*values, codes=tuple(codes))
        return record if isinstance(record.at, int) and isinstance(record.key_name, str) else None
    except (ValueError, TypeError):
        return None


@dataclass
class Totals:
    """Sums of records.

    Attributes:
        usage: by key, model and day: numbers in the order of ``NAMES``.
        errors: by key, model, day and code.
        last_used: when each key was used last.
        images: by key, whatever the day.
    """

    usage: dict[tuple[str, str, datetime.date], list[float]] = field(default_factory=dict)
    errors: Counter[tuple[str, str, datetime.date, str]] = field(default_factory=Counter)
    last_used: dict[str, int] = field(default_factory=dict)
    images: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, records: Iterable[Record]) -> Totals:
        """The sums of these records."""
        totals = cls()
        for record in records:
            totals.add(record)
        return totals

    def add(self, record: Record) -> None:
        """Count a record."""
        day = datetime.datetime.fromtimestamp(record.at, datetime.UTC).date()
        if record.requests:
            sums = self.usage.setdefault((record.key_name, record.model, day), [0] * len(NAMES))
            for index, name in enumerate(NAMES):
                sums[index] += getattr(record, name)
            self.images[record.key_name] += record.images
        for code in record.codes:
            self.errors[record.key_name, record.model, day, code[:MAX_CODE_CHARS]] += 1
        self.last_used[record.key_name] = max(record.at, self.last_used.get(record.key_name, 0))
