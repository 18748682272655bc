"""What is asked of the engine: the options of one generation, and one request on its way through the scheduler.

Options are checked when they are made and never again. A request carries everything that belongs to it: the image it
shares with its siblings, the prompt's ids, its search, the future that its caller holds. Knows nothing of threads,
batches or models.
"""

from __future__ import annotations

import numbers
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypedDict, TypeVar

from florence2.engine.pending import PendingAnswer
from florence2.engine.search import BeamSearch, Generated, GreedySearch, SpecialTokens
from florence2.errors import EngineFailed, Florence2Error, InvalidOption
from florence2.tasks.prompt import shortened

if TYPE_CHECKING:
    from torch import Tensor

MAX_BEAMS = 16
MAX_LENGTH_PENALTY = 10.0  # beyond it, powers of a length leave the range of floating point

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class GenerationOptions:
    """How an answer is searched for.

    Attributes:
        num_beams: hypotheses followed at once, 1 (greedy) to 16.
        max_new_tokens: the longest answer in tokens, its ``<s>`` and ``</s>`` included.
        no_repeat_ngram_size: no run of this many tokens comes twice in an answer; 0 switches the rule off.
        length_penalty: a finished beam's score is divided by its length to this power.
        early_stopping: stop with as many finished answers as beams (True), when the best running beam can't win any
            more by its present length (False), or by the best length it could reach ("never").

    Raises:
        InvalidOption: a value of the wrong type or out of range; ``field`` is its name.
    """

    num_beams: int = 1
    max_new_tokens: int = 1024
    no_repeat_ngram_size: int = 0
    length_penalty: float = 1.0
    early_stopping: bool | str = False

    def __post_init__(self) -> None:
        """Refuse what is out of range; numbers of other libraries (NumPy's, a tensor's one value) become Python's."""
        checked = {
            "num_beams": integer("num_beams", self.num_beams, 1, MAX_BEAMS),
            "max_new_tokens": integer("max_new_tokens", self.max_new_tokens, 1, None),
            "no_repeat_ngram_size": integer("no_repeat_ngram_size", self.no_repeat_ngram_size, 0, None),
            "length_penalty": _number("length_penalty", self.length_penalty, MAX_LENGTH_PENALTY),
            "early_stopping": _early_stopping(self.early_stopping),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)


class RequestOptions(TypedDict, total=False):
    """What a caller may set for one request; left out or None, the checkpoint's own value holds.

    The first five are those of ``GenerationOptions``.

    Attributes:
        scores: add to the result how likely each object is right.
        auto_orient: turn files and bytes upright by their EXIF orientation, which is the default.
        allow_unknown_tag: take a tag that is none of the fifteen as free text, for fine-tuned checkpoints.
        keep_image: let the result refer to the image, which is the default, so that it can draw it; False where many results about
            images in memory are kept.
        fair_key: on whose account the request stands. While several accounts wait, they take turns.
    """

    num_beams: int | None
    max_new_tokens: int | None
    no_repeat_ngram_size: int | None
    length_penalty: float | None
    early_stopping: bool | str | None
    scores: bool | None
    auto_orient: bool | None
    allow_unknown_tag: bool | None
    keep_image: bool | None
    fair_key: str | None


def as_flag(value: object) -> bool | None:
    """The truth value that a boolean of any library holds; None for everything else, 0 and 1 included."""
    if isinstance(value, bool):
        return value
    if getattr(value, "ndim", None) == 0 and str(getattr(value, "dtype", "")) in ("bool", "torch.bool"):
        return bool(value)
    return None


def integer(name: str, value: object, low: int, high: int | None) -> int:
    """The integer, of any library, within its range; booleans are no integers here."""
    try:
        number = None if as_flag(value) is not None else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or number < low or (high is not None and number > high):
        wanted = f"an integer of at least {low}" if high is None else f"an integer from {low} to {high}"
        raise InvalidOption(f"{name} must be {wanted}, got {shortened(value)}", field=name)
    return number


def _number(name: str, value: object, limit: float) -> float:
    """The number, of any library, from ``-limit`` to ``limit``."""
    is_number = isinstance(value, numbers.Real) or (getattr(value, "ndim", None) == 0 and hasattr(value, "__float__"))
    # Written with "not", the comparison refuses NaN too.
    if as_flag(value) is not None or not is_number or not -limit <= value <= limit:  # type: ignore[operator]
        raise InvalidOption(f"{name} must be a number from {-limit:g} to {limit:g}, got {shortened(value)}", field=name)
    return float(value)  # type: ignore[arg-type]


def _early_stopping(value: object) -> bool | str:
    # Not "in (True, False, 'never')": 1 and 0 would pass as equal to them.
    flag = as_flag(value)
    if flag is None and not (isinstance(value, str) and value == "never"):
        raise InvalidOption(f'early_stopping must be True, False or "never", got {shortened(value)}', field="early_stopping")
    return "never" if flag is None else flag


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
        pixels: the preprocessed image, ``[3, height, width]``; dropped once it is encoded.
        features: its tokens, ``[image_tokens, width]``, from then on.
    """

    pixels: Tensor | None
    features: Tensor | None = None

    @property
    def num_bytes(self) -> int:
        """What it holds in memory."""
        # The engine's thread sets features first and drops the pixels then.
        held = self.pixels if self.features is None else self.features
        return 0 if held is None else held.nbytes


@dataclass(eq=False)
class Request(Generic[Answer]):
    """One request, from ``submit`` to its answer.

    Attributes:
        image: the image, shared with other prompts on it.
        prompt_ids: the prompt with ``<s>`` and ``</s>``.
        search: where its generation stands.
        fair_key: on whose account it stands; accounts take turns in the queue.
        interpret: makes the caller's answer of what was generated; runs in the engine's thread.
        future: what the caller waits on. It stays cancellable until the answer is there.
        is_settled: the future has its outcome, and the request is no one's concern any more.
    """

    image: SharedImage
    prompt_ids: list[int]
    search: GreedySearch | BeamSearch
    interpret: Callable[[Generated], Answer]
    future: PendingAnswer[Answer] = field(default_factory=PendingAnswer)
    fair_key: str = ""
    is_settled: bool = False

    @property
    def is_cancelled(self) -> bool:
        """The caller no longer wants the answer."""
        return self.future.cancelled()

    def answer(self, generated: Generated) -> None:
        """Give the caller the answer, or the error that came up while making it."""
        try:
            result: Any = self.interpret(generated)
        except BaseException as error:
            self.fail(error if isinstance(error, Florence2Error) else step_failure(error))
            return
        if self._settle():
            self.future.set_result(result)

    def fail(self, error: BaseException) -> None:
        """Give the caller an error."""
        if self._settle():
            self.future.set_exception(error)

    def drop(self) -> None:
        """Cancel on the engine's side, or take note of the caller's cancelling; whoever waits is woken."""
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


def step_failure(error: BaseException) -> EngineFailed:
    """What callers are told of an error that is not theirs, with the error as its cause. One for each of them."""
    failure = EngineFailed(f"a step of the engine failed: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure
