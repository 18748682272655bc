"""From generated tokens to the text and the objects of an answer, while it is generated or at its end.

In: the prompt, and the tokens as they come, with their probabilities. Out: the text that is certain, and each object as soon as it is
complete. The result of a whole answer is read by the same code. It brings detokenizing, parsing and scores together and holds no rule of
its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from florence2.results import Kind
from florence2.tasks.detokenizer import Detokenizer
from florence2.tasks.parsing import Found, ObjectReader
from florence2.tasks.prompt import Prompt
from florence2.tasks.scoring import Scores, TokenProbabilities, TokenSpans, score_objects
from florence2.tasks.sentinels import TextFilter
from florence2.tasks.table import TASKS, Grammar
from florence2.tasks.tokenizer import Tokenizer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def grammar_of(tag: str | None) -> Grammar:
    """The form of the answers to a tag; where there is no such task it is text."""
    return TASKS[tag].grammar if tag in TASKS else "text"


def kind_of(tag: str | None) -> Kind:
    """The kind of the answers to a tag; where there is no such task it is text."""
    return TASKS[tag].kind if tag in TASKS else "text"


class Part(NamedTuple):
    """What some tokens add to an answer.

    Attributes:
        text: what is certain of the result's ``text``.
        found: the objects that are complete.
        scores: their scores, where they were asked for.
    """

    text: str
    found: list[Found]
    scores: Scores | None


class AnswerReader:
    """Reads one answer, token by token.

    Args:
        prompt: what was asked.
        tokenizer: the checkpoint's tokenizer.
        banned_phrases: labels that grounding leaves out: the checkpoint's list.
        scores: whether objects get scores.

    Attributes:
        raw: the text so far, special tokens kept.
        found: the objects so far.
        scores: their scores; None where they were not asked for, or the answer has no objects.
    """

    def __init__(self, prompt: Prompt, tokenizer: Tokenizer, banned_phrases: frozenset[str] = frozenset(), *, scores: bool = False) -> None:
        has_scores = scores and kind_of(prompt.tag) != "text"
        self.raw = ""
        self.found: list[Found] = []
        self.scores = Scores([], [], []) if has_scores else None
        self._texts: list[str] = []
        self._is_complete = False
        self._tokenizer = tokenizer
        self._detokenizer = Detokenizer()
        self._text = TextFilter(kind_of(prompt.tag))
        self._objects = ObjectReader(grammar_of(prompt.tag), banned_phrases)
        self._token_spans = TokenSpans(self._text.sentinels) if has_scores else None
        self._own: list[float] = []
        self._locations: list[NDArray[np.float32] | None] = []

    def add(
        self,
        token_ids: Sequence[int],
        log_probabilities: Sequence[float] = (),
        location_probabilities: Sequence[NDArray[Any] | None] = (),
        *,
        is_last: bool = False,
    ) -> Part:
        """What these tokens add.

        Args:
            token_ids: the ids that follow.
            log_probabilities: one for each of them; needed for scores.
            location_probabilities: for each id that is a location the probabilities of all locations there; may be left out.
            is_last: whether the answer ends with them.
        """
        raw = "".join([self._detokenizer.add(self._tokenizer.token_bytes(token_id)) for token_id in token_ids])
        if is_last:
            raw += self._detokenizer.end()
        self.raw += raw
        text = self._text.add(raw, is_last=is_last)
        found = self._objects.add(raw, text, is_last=is_last)
        self._texts.append(text)
        self.found += found
        self._is_complete = is_last
        if self.scores is None:
            return Part(text, found, None)
        self._own += log_probabilities
        self._locations += location_probabilities
        return Part(text, found, self._scores(found) if found else Scores([], [], []))

    @property
    def text(self) -> str:
        """What is certain so far of the result's ``text``."""
        return "".join(self._texts)

    @property
    def has_whole_answer(self) -> bool:
        """Whether what was read is the result: the answer has ended, and its objects are not others than those that were given."""
        return self._is_complete and not self._objects.was_contradicted

    def _scores(self, found: list[Found]) -> Scores | None:
        if self.scores is None or self._token_spans is None:
            return None
        self._token_spans.update(self._detokenizer.offsets)
        scores = score_objects(found, self._token_spans, TokenProbabilities(self._own, self._locations))
        for known, new in zip(self.scores.lists, scores.lists, strict=True):
            known += new
        return scores
