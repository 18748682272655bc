"""What a caller learns of an answer while it is generated: tokens that are decided, with their text, and objects that are complete.

Plain values, reported in the order in which they come to be known; nothing takes one back. Knows nothing of how they are found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from florence2.results import FoundObject


@dataclass(frozen=True)
class TokensDecided:
    """Tokens of an answer that nothing takes back any more.

    Attributes:
        token_ids: the ids that were decided since the last event; all of them, one event after the other, are the result's.
        text: the text that they complete, in whole characters. The texts of all events, one after the other, are the result's ``text``:
            without framing tokens, and of an answer in words without whitespace around it. Empty where nothing is certain yet.
        raw: the text of all that is decided so far, special tokens kept: a beginning of the result's ``raw``.
        index: which of the prompts of ``submit_many`` is answered, from 0.
        log_probabilities: one for each of ``token_ids``, as in the result.
    """

    token_ids: tuple[int, ...]
    text: str
    raw: str
    index: int = 0
    log_probabilities: tuple[float, ...] = ()


@dataclass(frozen=True)
class ObjectFound:
    """An object of an answer that is complete; it comes after the tokens that complete it.

    Attributes:
        object: the object, equal to that of the result's ``objects`` with this index.
        bins: its location bins, as the result's ``bins`` have them.
        object_index: which of the result's objects it is, from 0.
        index: which of the prompts of ``submit_many`` is answered, from 0.
    """

    object: FoundObject
    bins: list[Any]
    object_index: int
    index: int = 0


Event = TokensDecided | ObjectFound
OnEvent = Callable[[Event], object]
"""A callback for events. It runs in the engine's thread: it must be short, and must not wait for an answer."""
