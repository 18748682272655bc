"""What is noted of the request in whose context code runs: its id and trace for lines of the log, and what its answers took.

The middleware opens the notes; an observer of the inference service adds to them; the log reads them. Knows nothing of how.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from florence2.server.inference.observer import Answered, Failed

_NOTES: ContextVar[RequestNotes | None] = ContextVar("florence2_request_notes", default=None)


@dataclass
class RequestNotes:
    """What is known of one request so far.

    Attributes:
        request_id: its id.
        trace_id: the id of its trace, if that is exported; None otherwise.
        num_tokens: tokens generated for it.
        image_s: the longest time until one of its images was in the engine's queue.
        queue_s: the longest time that one of its prompts waited there.
        run_s: the longest time from then to an answer.
        span: the request's span; None where nothing is traced.
    """

    request_id: str
    trace_id: str | None = None
    num_tokens: int = 0
    image_s: float = 0.0
    queue_s: float = 0.0
    run_s: float = 0.0
    span: Any = None

    @property
    def timings(self) -> dict[str, object]:
        """The fields that an answered request has in the log."""
        if not self.num_tokens:
            return {}
        times = {"image_ms": self.image_s, "queue_ms": self.queue_s, "run_ms": self.run_s}
        return {"tokens": self.num_tokens, **{name: round(seconds * 1000, 1) for name, seconds in times.items()}}


class NotesKeeper:
    """Adds what is answered to the notes of its request; an observer of the inference service."""

    def note_answer(self, answered: Answered) -> None:
        """Add an image that was answered; see ``Observer``."""
        notes = _NOTES.get()
        if notes is None:
            return
        notes.image_s = max(notes.image_s, answered.image_s)
        for result in answered.results:
            queue_s, total_s = (0.0, answered.engine_s) if result.timing is None else (result.timing.queue_s, result.timing.total_s)
            notes.num_tokens += len(result.token_ids)
            notes.queue_s = max(notes.queue_s, queue_s)
            notes.run_s = max(notes.run_s, total_s - queue_s)

    def note_failure(self, failed: Failed) -> None:
        """Nothing: the error has a field of its own."""


@contextmanager
def noting(request_id: str) -> Iterator[RequestNotes]:
    """The notes of one request, kept as long as the block runs."""
    notes = RequestNotes(request_id)
    token = _NOTES.set(notes)
    try:
        yield notes
    finally:
        _NOTES.reset(token)


def current_notes() -> RequestNotes | None:
    """The notes of the request in whose context this is called; None outside of requests."""
    return _NOTES.get()


def ids() -> dict[str, str]:
    """The ids of the request in whose context this is called, for a line of the log; none outside of requests."""
    notes = _NOTES.get()
    if notes is None:
        return {}
    return {"request_id": notes.request_id, **({} if notes.trace_id is None else {"trace_id": notes.trace_id})}


def trace_id() -> str | None:
    """The id of the exported trace in whose context this is called."""
    notes = _NOTES.get()
    return None if notes is None else notes.trace_id
