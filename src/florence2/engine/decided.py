"""From the steps of a search to events: the tokens that are decided, their text, and the objects that they complete.

In: a search after each step. Out: events, given to a callback in the engine's thread. Decided is what no later step can take back: with a
greedy search every token, with beams the beginning that all sequences share which can still win. Knows nothing of futures, threads or
batches.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from florence2.answer_events import ObjectFound, OnEvent, TokensDecided
from florence2.engine.answer import Interpreter
from florence2.engine.search import BeamSearch, Generated, GreedySearch, SearchToken
from florence2.results import Result

MIN_INTERVAL_S = 0.02
"""Shortest time between two reports about one answer.

Small models take steps of a millisecond or two, of which a report would be a tenth. Steps of base and large take longer than this.
"""
MAX_INTERVAL_S = 0.1
MAX_SHARE = 0.01
"""Which part of the engine's time reports should take: with many listeners each is reported to less often, up to the longest interval."""


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
        tokens = Tokens([], [], [])
        if finished is not None and finished is self._diverged:
            return tokens
        token = running = _last_in_common(self._search.running)
        if finished is not None and running is not None:
            token = _last_in_common((running, finished))
            # Sequences that have parted stay apart.
            self._diverged = None if token is running else finished
        while token is not None and token.length > self._count:
            tokens.token_ids.append(token.token_id)
            tokens.log_probabilities.append(token.log_probability)
            tokens.locations.append(token.locations)
            token = token.parent
        for each in tokens:
            each.reverse()
        return tokens


def _last_in_common(tokens: Sequence[SearchToken | None]) -> SearchToken | None:
    """The last token that all sequences share, each given by its last token; None where they differ from the first on."""
    if len(tokens) == 1:
        return tokens[0]
    tips = set(tokens)
    while len(tips) > 1:
        longest = max(0 if tip is None else tip.length for tip in tips)
        tips = {tip.parent if tip is not None and tip.length == longest else tip for tip in tips}
    return tips.pop()


def has_chosen(search: GreedySearch | BeamSearch) -> bool:
    """Whether a token is decided that the model has chosen, rather than a rule: all sequences that can still win begin with it."""
    finished = search.best_finished
    length = 1 if search.special.forced_bos is None else 2
    firsts = {_ancestor(token, length) for token in (*search.running, *(() if finished is None else (finished,)))}
    return search.answer is not None or (len(firsts) == 1 and None not in firsts)


def _ancestor(token: SearchToken | None, length: int) -> SearchToken | None:
    """Where a sequence had so many tokens; None where it has fewer."""
    while token is not None and token.length > length:
        token = token.parent
    return token if token is not None and token.length == length else None


class Reporter:
    """Calls a callback with what the steps of a search have decided.

    Args:
        search: the search.
        interpreter: what makes the result of the same request.
        on_event: the callback.
        index: which of several prompts is answered.
    """

    def __init__(self, search: GreedySearch | BeamSearch, interpreter: Interpreter, on_event: OnEvent, index: int) -> None:
        self._search = search
        self._decided = DecidedTokens(search)
        self._interpreter = interpreter
        self._reader = interpreter.reader()
        self._on_event = on_event
        self._index = index
        self._num_objects = 0
        self._due_at = 0.0

    def report(self, num_requests: int) -> None:
        """Call the callback if tokens were decided since the last time, and that is long enough ago or the answer has ended.

        Args:
            num_requests: how many requests take the engine's steps together.
        """
        is_last, now = self._search.answer is not None, time.monotonic()
        if now < self._due_at and not is_last:
            return
        ids, log_probabilities, locations = self._decided.new()
        if not ids:
            return
        part = self._reader.add(ids, log_probabilities, locations, is_last=is_last)
        self._on_event(TokensDecided(tuple(ids), part.text, self._reader.raw, self._index, tuple(log_probabilities)))
        if part.found:
            for found, bins in self._interpreter.objects(part):
                self._on_event(ObjectFound(found, bins, self._num_objects, self._index))
                self._num_objects += 1
        if part.text:  # what nobody sees, such as the token that begins every answer, delays nothing
            wanted_s = num_requests * (time.monotonic() - now) / MAX_SHARE
            self._due_at = now + min(max(wanted_s, MIN_INTERVAL_S), MAX_INTERVAL_S)

    def result(self, generated: Generated) -> Result:
        """The result, without reading again what was reported."""
        return self._interpreter(generated, self._reader)
