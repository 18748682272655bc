"""One row of a table of hostile input, and how its answer is held against it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_MESSAGE_CHARS = 500
ROOT = str(Path(__file__).parents[3])


@dataclass(frozen=True)
class Case:
    """What somebody sends, and what they get.

    Attributes:
        name: what it is.
        sent: a file, a text, or the bytes of a whole request, as the table says.
        status: of the answer.
        code: of the error; "" where the answer is none.
        says: words that its message has.
        within_s: the answer is there.
    """

    name: str
    sent: Any
    status: int
    code: str = ""
    says: str = ""
    within_s: float = 1.0


def complaint(case: Case, status: int, told: dict[str, Any]) -> str | None:
    """What is wrong with an answer; None: nothing."""
    error = told.get("error", told) if isinstance(told.get("error"), dict) else told
    message, code = str(error.get("message", "")), error.get("code", "")
    if status != case.status or (case.code and code != case.code):
        return f"{case.name}: expected {case.status} {case.code}, got {status} {code}: {message}"
    if case.says not in message:
        return f"{case.name}: expected a message with {case.says!r}, got {message!r}"
    if len(message) > MAX_MESSAGE_CHARS or "Traceback" in message or ROOT in message or "site-packages" in message:
        return f"{case.name}: the message says too much: {message!r}"
    return None
