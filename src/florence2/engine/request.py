"""One request on its way through the scheduler.

It carries everything that belongs to it: the image it shares with other prompts, the prompt's ids, its search, the future that its caller
holds. Knows nothing of threads, batches or models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from florence2.engine.decided import has_chosen
from florence2.engine.meter import Meter, Stopwatch, clock
from florence2.engine.pending import PendingAnswer
from florence2.engine.search import BeamSearch, Generated, GreedySearch, SpecialTokens
from florence2.engine.shortage import is_shortage
from florence2.errors import EngineFailed, Florence2Error, OutOfMemory
from florence2.request_options import GenerationOptions
from florence2.results import Result

if TYPE_CHECKING:
    from torch import Tensor

    from florence2.model.adapters import ModelAdapter

Answer = TypeVar("Answer")


def start_search(options: GenerationOptions, tokens: SpecialTokens, locations: Sequence[int] = ()) -> GreedySearch | BeamSearch:
    """A search at its beginning, as the options ask for it; it keeps how probable each of ``locations`` was, where there are any."""
    if options.num_beams == 1:
        return GreedySearch(
            tokens,
            max_new_tokens=options.max_new_tokens,
            no_repeat_ngram_size=options.no_repeat_ngram_size,
            locations=locations,
        )
    return BeamSearch(
        tokens,
        num_beams=options.num_beams,
        max_new_tokens=options.max_new_tokens,
        no_repeat_ngram_size=options.no_repeat_ngram_size,
        length_penalty=options.length_penalty,
        early_stopping=options.early_stopping,
        locations=locations,
    )


@dataclass(eq=False)
class SharedImage:
    """One image of one or several requests; encoded once, when the first of them enters.

    Attributes:
        pixels: what the batch makes the model's input of, in the pass that encodes it: of an engine the picture at the model's size, uint8,
            ``[height, width, 3]``, a quarter of its input. Dropped then.
        features: its tokens, ``[image_tokens, width]``, from then on.
        adapter: the adapter that it is encoded with, of those that change how images are encoded; None for the base.
    """

    pixels: Any
    features: Tensor | None = None
    adapter: ModelAdapter | None = None

    @property
    def num_bytes(self) -> int:
        """Its size in memory."""
        # The engine's thread sets features first and drops the pixels then.
        held = self.pixels if self.features is None else self.features
        return 0 if held is None else held.nbytes


@dataclass(eq=False)
class Request(Generic[Answer]):
    """One request, from ``submit`` to its answer.

    Attributes:
        image: the image, shared with other prompts on it.
        prompt_ids: the prompt with ``<s>`` and ``</s>``.
        search: the state of its generation.
        fair_key: the account of the request; accounts take turns in the queue.
        interpret: makes the caller's answer of what was generated; runs in the engine's thread.
        future: the caller's future. It stays cancellable until the answer is there.
        on_step: called in the engine's thread with the number of requests when a step has advanced the search; None without a listener.
        adapter: the adapter that answers; None for the base.
        is_settled: the future has its outcome, and the request is done.
        stopwatch: the times of the request.
    """

    image: SharedImage
    prompt_ids: list[int]
    search: GreedySearch | BeamSearch
    interpret: Callable[[Generated], Answer]
    future: PendingAnswer[Answer] = field(default_factory=PendingAnswer)
    fair_key: str = ""
    on_step: Callable[[int], object] | None = None
    adapter: ModelAdapter | None = None
    is_settled: bool = False
    stopwatch: Stopwatch = field(default_factory=Stopwatch)

    @property
    def has_begun(self) -> bool:
        """Some step has advanced its search."""
        return self.search.running[0] is not None

    @property
    def is_cancelled(self) -> bool:
        """The caller no longer wants the answer."""
        return self.future.cancelled()

    def report_step(self, num_requests: int) -> None:
        """Report the tokens that a step of so many requests has decided, if there is a listener; an error there fails this one alone."""
        if self.on_step is None or self.is_cancelled:
            return
        try:
            self.on_step(num_requests)
        except BaseException as error:
            failure = EngineFailed(f"the callback on_event raised {type(error).__name__}: {error}")
            failure.__cause__ = error
            self.fail(failure)

    def note_step(self) -> None:
        """Note when the first token is decided that the model has chosen."""
        if self.stopwatch.first_token_at is None and has_chosen(self.search):
            self.stopwatch.first_token_at = clock()

    def answer(self, generated: Generated, meter: Meter) -> None:
        """Give the caller the answer with its timing, or the error that came up while making it."""
        watch, began_at = self.stopwatch, clock()
        try:
            result: Any = self.interpret(generated)
        except BaseException as error:
            self.fail(error if isinstance(error, Florence2Error) else step_failure(error))
            return
        answered_at = clock()
        watch.parse_s = answered_at - began_at
        meter.bear_alone(watch.parse_s)
        watch.compute_s += watch.parse_s + (meter.row_s - watch.row_s) * self.search.num_rows
        if isinstance(result, Result):
            result = replace(result, timing=watch.timing(answered_at))
        if self._settle():
            self.future.set_result(result)

    def fail(self, error: BaseException) -> None:
        """Give the caller an error."""
        if self._settle():
            self.future.set_exception(error)

    def drop(self) -> None:
        """Cancel on the engine's side, or take note of the caller's cancelling; waiting callers are woken."""
        self.future.cancel()
        self._settle()

    def _settle(self) -> bool:
        """True exactly once, and only when the future can take an outcome; wakes waiters of a cancelled one."""
        if self.is_settled:
            return False
        self.is_settled = True
        if self.future.done() and not self.future.cancelled():  # the caller has given it an outcome of their own
            return False
        return self.future.set_running_or_notify_cancel()


def step_failure(error: BaseException) -> EngineFailed | OutOfMemory:
    """The error for a caller whose request a failed step has ended, with the failure as its cause. One for each caller."""
    failure: EngineFailed | OutOfMemory
    if is_shortage(error):
        failure = OutOfMemory("the engine has too little memory for the request beside what it is doing; send it again a little later")
    else:
        failure = EngineFailed(f"a step of the engine failed: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure
