"""Greedy and beam search: from the best next tokens of every row (``next_tokens.py``) to an answer.

A search belongs to one request: it says which tokens it may not take next, is given its rows' best tokens, and says which tokens
to feed, which row each continues, and at last the answer. Ties go to the lower row, then the lower token id.

Source: the semantics of ``generate`` in transformers (greedy and beam search), float32 throughout. Knows nothing of
models, batches or text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from florence2.engine.next_tokens import Candidates
from florence2.engine.ngrams import NGrams, continued
from florence2.errors import EngineFailed
from florence2.results import FinishReason

FLOOR = -1.0e9  # what stands for "no such beam"; small enough for every real score, and adding to it changes nothing


@dataclass(frozen=True)
class SpecialTokens:
    """The ids that steer a generation; a forced token is None where nothing is forced."""

    start: int = 2
    eos: int = 2
    forced_bos: int | None = 0
    forced_eos: int | None = 2

    @property
    def forced(self) -> tuple[int, ...]:
        """The forced tokens, first and last, as far as there are any."""
        return tuple(token for token in (self.forced_bos, self.forced_eos) if token is not None)


@dataclass(frozen=True)
class Generated:
    """An answer in tokens.

    Attributes:
        token_ids: what was generated, without the decoder's start token.
        log_probabilities: the model's own natural logarithm for each of them, before any rule was applied.
        finish_reason: "stop" if the model ended the answer, "length" if the limit did.
        locations: for each token that is a location, how probable the model held every location there, ``[locations]``; None for all
            other tokens, and where the search was not to keep them.
    """

    token_ids: list[int]
    log_probabilities: list[float]
    finish_reason: FinishReason
    locations: list[NDArray[np.float32] | None] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class SearchToken:
    """The last token of a sequence, and through its parents all that went before; sequences share their beginnings.

    Attributes:
        length: of the sequence that ends here, in tokens.
    """

    token_id: int
    log_probability: float
    parent: SearchToken | None
    length: int
    locations: NDArray[np.float32] | None = None

    def generated(self, finish_reason: FinishReason) -> Generated:
        """The whole sequence, first token first."""
        tokens: list[SearchToken] = []
        token: SearchToken | None = self
        while token is not None:
            tokens.append(token)
            token = token.parent
        tokens.reverse()
        log_probabilities = [token.log_probability for token in tokens]
        return Generated([token.token_id for token in tokens], log_probabilities, finish_reason, [token.locations for token in tokens])


class GreedySearch:
    """The best token at every step.

    Attributes:
        tokens: the token to feed next, for each row (here one).
        parents: which row each row continues.
        locations: the tokens whose alternatives are kept in the answer; empty where they are not wanted.
        answer: what was generated, once it is complete.
        special: the ids that steer it.
    """

    num_rows = 1
    num_candidates = 1

    def __init__(
        self, special: SpecialTokens, *, max_new_tokens: int, no_repeat_ngram_size: int = 0, locations: Sequence[int] = ()
    ) -> None:
        self.locations = locations
        self.tokens = [special.start]
        self.parents = [0]
        self.answer: Generated | None = None
        self.special = special
        self._max_new_tokens = max_new_tokens
        self._ngrams = NGrams(no_repeat_ngram_size, special.start)
        self._last: SearchToken | None = None
        self._length = 0

    @property
    def running(self) -> tuple[SearchToken | None, ...]:
        """The last token of each running sequence; None before the first."""
        return (self._last,)

    @property
    def best_finished(self) -> SearchToken | None:
        """The last token of the finished sequence that is the answer if no running one beats it; None without one."""
        return None

    @property
    def forced(self) -> tuple[int, ...]:
        """The tokens whose log-probabilities ``advance`` needs whatever their rank."""
        return self.special.forced

    def banned(self) -> list[tuple[int, ...]]:
        """The tokens that each row may not take next."""
        return [self._ngrams.banned()]

    def advance(self, candidates: Candidates) -> None:
        """Take one step.

        Args:
            candidates: the best next token of the row.

        Raises:
            EngineFailed: the model's logits are not numbers.
        """
        _refuse_nan(candidates)
        best = int(candidates.token_ids[0, 0])
        forced = _forced_token(self.special, self._length, self._max_new_tokens)
        token = best if forced is None else forced
        log_probability = candidates.log_probs[0, 0] if forced is None else candidates.forced_log_probs[forced][0]
        self._length += 1
        locations = _kept(candidates.locations, 0, token, self.locations)
        self._last = SearchToken(token, float(log_probability), self._last, self._length, locations)
        self._ngrams.append(token)
        self.tokens = [token]
        if token == self.special.eos or self._length == self._max_new_tokens:
            self.answer = self._last.generated("stop" if token == best == self.special.eos else "length")


class _Continuations(NamedTuple):
    """The best continuations over all beams, best first.

    ``rows`` are those they continue, ``log_probs`` the model's own for their tokens, ``is_own`` whether the model chose the
    token (or would have, where it was forced).
    """

    scores: NDArray[np.float32]
    rows: list[int]
    tokens: list[int]
    log_probs: list[float]
    is_own: list[bool]
    locations: NDArray[np.float32] | None  # as in ``Candidates``, by row


class BeamSearch:
    """The sequence of the best score among several that are followed at once.

    A score is the sum of log-probabilities, divided by length to the power of the length penalty once the sequence has
    ended. Twice as many candidates as beams are looked at, so that enough go on when some end. Attributes as in
    ``GreedySearch``; rows are beams, the best first.
    """

    def __init__(
        self,
        special: SpecialTokens,
        *,
        num_beams: int,
        max_new_tokens: int,
        no_repeat_ngram_size: int = 0,
        length_penalty: float = 1.0,
        early_stopping: bool | str = False,
        locations: Sequence[int] = (),
    ) -> None:
        self.locations = locations
        self.num_rows = num_beams
        self.num_candidates = 2 * num_beams
        self.tokens = [special.start] * num_beams
        self.parents = list(range(num_beams))
        self.answer: Generated | None = None
        self.special = special
        self._max_new_tokens = max_new_tokens
        self._length_penalty = length_penalty
        self._early_stopping = early_stopping
        self._length = 0
        self._last: list[SearchToken | None] = [None] * num_beams
        self._ngrams = [NGrams(no_repeat_ngram_size, special.start) for _ in range(num_beams)]
        # All rows begin alike, so only the first may have children at the first step.
        self._scores: NDArray[np.float32] = np.full(num_beams, FLOOR, dtype=np.float32)
        self._scores[0] = 0.0
        self._finished: list[tuple[float, SearchToken, FinishReason]] = []  # score, last token, finish reason; best first

    @property
    def running(self) -> tuple[SearchToken | None, ...]:
        """The last token of each running sequence; None before the first."""
        return tuple(self._last)

    @property
    def best_finished(self) -> SearchToken | None:
        """The last token of the finished sequence that is the answer if no running one beats it; None without one."""
        return self._finished[0][1] if self._finished else None

    @property
    def forced(self) -> tuple[int, ...]:
        """The tokens whose log-probabilities ``advance`` needs whatever their rank."""
        return self.special.forced

    def banned(self) -> list[tuple[int, ...]]:
        """The tokens that each row may not take next."""
        return [ngrams.banned() for ngrams in self._ngrams]

    def advance(self, candidates: Candidates) -> None:
        """Take one step.

        Args:
            candidates: at least ``num_candidates`` best next tokens of each row (fewer only in a smaller vocabulary).

        Raises:
            EngineFailed: the model's logits are not numbers.
        """
        _refuse_nan(candidates)
        reached = self._continuations(candidates)
        self._length += 1
        is_last = self._length == self._max_new_tokens
        has_ended = [is_last or token == self.special.eos for token in reached.tokens]
        if any(has_ended):
            self._collect_finished(reached, has_ended)
            running_scores = reached.scores + np.array(has_ended, dtype=np.float32) * np.float32(FLOOR)
            chosen = np.argsort(-running_scores, kind="stable")[: self.num_rows].tolist()
        else:
            running_scores, chosen = reached.scores, list(range(self.num_rows))
        if all(has_ended) or self._is_settled(float(running_scores[chosen[0]])):
            self._finish(reached)
            return
        self._last = [self._extended(reached, index) for index in chosen]
        self._scores = running_scores[chosen].astype(np.float32, copy=False)
        self.parents = [reached.rows[index] for index in chosen]
        self.tokens = [reached.tokens[index] for index in chosen]
        self._ngrams = continued(self._ngrams, self.parents, self.tokens)

    def _continuations(self, candidates: Candidates) -> _Continuations:
        """The best continuations over all rows."""
        forced = _forced_token(self.special, self._length, self._max_new_tokens)
        rows = list(range(self.num_rows))
        if forced is not None:
            # A forced token counts as certain, and rows stand best first already.
            log_probs = candidates.forced_log_probs[forced].tolist()
            is_own = (candidates.token_ids[:, 0] == forced).tolist()
            return _Continuations(self._scores, rows, [forced] * self.num_rows, log_probs, is_own, candidates.locations)
        totals = (candidates.log_probs + self._scores[:, None]).ravel()
        best = np.argsort(-totals, kind="stable")[: self.num_candidates]
        rows = (best // candidates.log_probs.shape[1]).tolist()
        tokens, log_probs = candidates.token_ids.ravel()[best].tolist(), candidates.log_probs.ravel()[best].tolist()
        return _Continuations(totals[best], rows, tokens, log_probs, [True] * len(rows), candidates.locations)

    def _collect_finished(self, reached: _Continuations, has_ended: list[bool]) -> None:
        """Keep the sequences that end here, as many as there are beams; only the best ``num_rows`` continuations count."""
        # One rounding to float32 for the divisor, one for the division.
        final_scores = reached.scores / np.float32(float(self._length) ** self._length_penalty)
        for index in range(self.num_rows):
            if has_ended[index] and final_scores[index] > FLOOR:
                is_own_end = reached.tokens[index] == self.special.eos and reached.is_own[index]
                reason: FinishReason = "stop" if is_own_end else "length"
                self._finished.append((float(final_scores[index]), self._extended(reached, index), reason))
        self._finished.sort(key=lambda entry: -entry[0])
        del self._finished[self.num_rows :]

    def _is_settled(self, best_running_score: float) -> bool:
        """Whether the answer is certain enough to stop, by the rule of ``early_stopping``."""
        if len(self._finished) < self.num_rows:
            return False
        if self._early_stopping is True:
            return True
        looks_ahead = self._early_stopping == "never" and self._length_penalty > 0.0
        length = self._max_new_tokens if looks_ahead else self._length
        reachable = np.float32(best_running_score) / np.float32(float(length) ** self._length_penalty)
        return not reachable > np.float32(self._finished[-1][0])

    def _finish(self, reached: _Continuations) -> None:
        """Settle on the best finished sequence."""
        if self._finished:
            _, last, reason = self._finished[0]
        else:  # no ended sequence has a finite score; the best unfinished one is still an answer
            last, reason = self._extended(reached, 0), "length"
        self.answer = last.generated(reason)

    def _extended(self, reached: _Continuations, index: int) -> SearchToken:
        """The sequence that a continuation makes."""
        row, token = reached.rows[index], reached.tokens[index]
        locations = _kept(reached.locations, row, token, self.locations)
        return SearchToken(token, reached.log_probs[index], self._last[row], self._length, locations)


def _kept(probabilities: NDArray[np.float32] | None, row: int, token: int, locations: Sequence[int]) -> NDArray[np.float32] | None:
    """The probabilities of a row's locations if one of them is taken: in memory of their own, for a view would keep all rows'."""
    return probabilities[row].copy() if probabilities is not None and token in locations else None


def _forced_token(special: SpecialTokens, length: int, max_new_tokens: int) -> int | None:
    """The token that has to follow ``length`` generated ones, if one has to."""
    if special.forced_eos is not None and length == max_new_tokens - 1:
        return special.forced_eos
    return special.forced_bos if length == 0 else None


def _refuse_nan(candidates: Candidates) -> None:
    """Numbers that are none can't be searched; they come from a half-precision overflow or from broken weights."""
    if np.isnan(candidates.log_probs).any():
        raise EngineFailed(
            "the model gave logits that are not numbers (NaN): load it with precision='fp32', and check its weights if that does not help"
        )
