"""From the steps of a search to events: the tokens that are decided, and their text.

In: a search after each step. Out: events, given to a callback in the engine's thread. Decided is what no later step can take back: with a
greedy search every token, with beams the beginning that all sequences share which can still win. Knows nothing of futures, threads or
batches.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from florence2.engine.events import OnEvent, TokensDecided
from florence2.engine.search import BeamSearch, GreedySearch, SearchToken
from florence2.tasks.tokenizer import Tokenizer


class Tokens(NamedTuple):
    """Some tokens of an answer, one after the other; the three lists are those of ``Generated``."""

    token_ids: list[int]
    log_probabilities: list[float]
    locations: list[NDArray[np.float32] | None]


class DecidedTokens:
    """The tokens of one search that are decided, from its beginning to its answer."""

    def __init__(self, search: GreedySearch | BeamSearch) -> None:
        self._search = search
        self._count = 0
        self._diverged: SearchToken | None = None

    def new(self) -> Tokens:
        """The tokens that were decided since the last call."""
        answer = self._search.answer
        if answer is None:
            tokens = self._agreed()
        else:
            new = slice(self._count, None)
            tokens = Tokens(answer.token_ids[new], answer.log_probabilities[new], answer.locations[new])
        self._count += len(tokens.token_ids)
        return tokens

    def _agreed(self) -> Tokens:
        """The new tokens on which all running sequences and the best finished one agree; no other can become the answer."""
        finished = self._search.best_finished
        agreed: list[SearchToken] = []
        if finished is None or finished is not self._diverged:
            token = running = _last_in_common(self._search.running)
            if finished is not None and running is not None:
                token = _last_in_common((running, finished))
                # Sequences that have parted stay apart.
                self._diverged = None if token is running else finished
            while token is not None and token.length > self._count:
                agreed.append(token)
                token = token.parent
            agreed.reverse()
        return Tokens([t.token_id for t in agreed], [t.log_probability for t in agreed], [t.locations for t in agreed])


def _last_in_common(tokens: Sequence[SearchToken | None]) -> SearchToken | None:
    """The last token that all sequences share, each given by its last token; None where they differ from the first on."""
    tips = set(tokens)
    while len(tips) > 1:
        longest = max(0 if tip is None else tip.length for tip in tips)
        tips = {tip.parent if tip is not None and tip.length == longest else tip for tip in tips}
    return tips.pop()


class DecidedText:
    """The text of tokens that come one after the other, in whole characters.

    Attributes:
        raw: all text so far, special tokens kept.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.raw = ""
        self._tokenizer = tokenizer
        self._framing = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, token_ids: Sequence[int], *, is_last: bool) -> str:
        """The text that these tokens complete, without framing tokens; after the last ones a broken character is U+FFFD."""
        parts: list[str] = []
        for token_id in token_ids:
            piece = self._tokenizer.token_bytes(token_id)
            text = self._decoder.decode(piece)
            self.raw += text
            parts.append(text.removesuffix(piece.decode()) if token_id in self._framing else text)
        if is_last:
            parts.append(self._decoder.decode(b"", final=True))
            self.raw += parts[-1]
        return "".join(parts)


class Reporter:
    """Calls a callback with what each step of a search has decided."""

    def __init__(self, search: GreedySearch | BeamSearch, tokenizer: Tokenizer, on_event: OnEvent, index: int) -> None:
        self._search = search
        self._decided = DecidedTokens(search)
        self._text = DecidedText(tokenizer)
        self._on_event = on_event
        self._index = index

    def report(self) -> None:
        """Call the callback if tokens were decided since the last time."""
        ids, log_probabilities, _ = self._decided.new()
        if ids:
            text = self._text.add(ids, is_last=self._search.answer is not None)
            self._on_event(TokensDecided(tuple(ids), text, self._text.raw, self._index, tuple(log_probabilities)))
