"""What a caller learns of an answer while it is generated: the tokens that are decided, and their text.

In: a search after each step. Out: ``TokensDecided`` events, given to a callback in the engine's thread. Decided is what no later step
can take back: with a greedy search every token, with beams the beginning that all sequences share which can still win. Knows nothing of
futures, threads or batches.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from florence2.engine.search import BeamSearch, GreedySearch, SearchToken
from florence2.tasks.tokenizer import Tokenizer


@dataclass(frozen=True)
class TokensDecided:
    """Tokens of an answer that nothing takes back any more.

    Attributes:
        token_ids: the ids that were decided since the last event; all of them, one event after the other, are the result's.
        text: the text that they complete, in whole characters and without the framing tokens ``<s>``, ``</s>`` and ``<pad>``; empty
            where no character is complete.
        raw: the text of all that is decided so far, special tokens kept: a beginning of the result's ``raw``.
        index: which of the prompts of ``submit_many`` is answered, from 0.
    """

    token_ids: tuple[int, ...]
    text: str
    raw: str
    index: int = 0


OnTokens = Callable[[TokensDecided], object]
"""A callback for events. It runs in the engine's thread: it must be short, and must not wait for an answer."""


class DecidedTokens:
    """The tokens of one search that are decided, from its beginning to its answer."""

    def __init__(self, search: GreedySearch | BeamSearch) -> None:
        self._search = search
        self._count = 0
        self._diverged: SearchToken | None = None

    def new(self) -> list[int]:
        """The ids that were decided since the last call."""
        answer = self._search.answer
        ids = self._agreed() if answer is None else answer.token_ids[self._count :]
        self._count += len(ids)
        return ids

    def _agreed(self) -> list[int]:
        """The new ids on which all running sequences and the best finished one agree; no other can become the answer."""
        finished = self._search.best_finished
        if finished is not None and finished is self._diverged:
            return []
        token = running = _last_in_common(self._search.running)
        if finished is not None and running is not None:
            token = _last_in_common((running, finished))
            # Sequences that have parted stay apart.
            self._diverged = None if token is running else finished
        ids: list[int] = []
        while token is not None and token.length > self._count:
            ids.append(token.token_id)
            token = token.parent
        return ids[::-1]


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

    def __init__(self, search: GreedySearch | BeamSearch, tokenizer: Tokenizer, on_tokens: OnTokens, index: int) -> None:
        self._search = search
        self._decided = DecidedTokens(search)
        self._text = DecidedText(tokenizer)
        self._on_tokens = on_tokens
        self._index = index

    def report(self) -> None:
        """Call the callback if tokens were decided since the last time."""
        token_ids = self._decided.new()
        if token_ids:
            text = self._text.add(token_ids, is_last=self._search.answer is not None)
            self._on_tokens(TokensDecided(tuple(token_ids), text, self._text.raw, self._index))
