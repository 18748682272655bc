"""What became of one request: the value that the sender makes of it and all figures are computed from.

Times are seconds from the beginning of a run. Knows nothing of how requests are sent.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Literal

Outcome = Literal["answered", "refused", "failed", "unfinished"]


@dataclass(frozen=True, slots=True)
class Measurement:
    """One request and what became of it.

    Attributes:
        name: the question's.
        due_s: when it was to be sent, which is when its latency begins.
        sent_s: when it was sent.
        ended_s: when the last byte of its answer was read, or when it was given up.
        outcome: ``answered``; ``refused`` (429 or 503, the server's way to say "later"); ``failed``; ``unfinished`` where the run was ended
            before it.
        status: the answer's HTTP status; None where there was none.
        error: what kind of failure it was, such as ``500``, ``timeout``, ``connection broke off``; None for an answer.
        message: what was said of the error, for people.
        retry_after_s: how long a refusal asks to wait; None where it does not say.
        first_event_s: when the first part of a streamed answer was read; None where nothing was streamed.
        gaps_s: the times between one part of a streamed answer and the next.
        num_tokens: of the answer; None where the server does not say.
    """

    name: str
    due_s: float
    sent_s: float
    ended_s: float
    outcome: Outcome
    status: int | None = None
    error: str | None = None
    message: str | None = None
    retry_after_s: float | None = None
    first_event_s: float | None = None
    gaps_s: array[float] = field(default_factory=lambda: array("d"))
    num_tokens: int | None = None

    @property
    def latency_s(self) -> float:
        """The time from when it was due to its end: what a user waits, however late the generator was."""
        return self.ended_s - self.due_s

    @property
    def lag_s(self) -> float:
        """How late it was sent."""
        return self.sent_s - self.due_s
