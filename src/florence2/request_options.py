"""The options of one request: what they may be, and what holds where a caller leaves one out.

Options are checked when they are made and never again. Knows nothing of images, prompts or models.
"""

from __future__ import annotations

import numbers
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from florence2.errors import InvalidOption
from florence2.tasks.prompt import shortened

if TYPE_CHECKING:
    from florence2.tiling.tiles import Tiles
    from florence2.weights.checkpoint import GenerationDefaults

MAX_BEAMS = 16
MAX_LENGTH_PENALTY = 10.0  # beyond it, powers of a length leave the range of floating point


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
        tiles: ask about overlapping parts of the picture and make one answer of theirs, for small things on large pictures: a grid of
            columns x rows ("2x2"), the side of a tile in pixels (640), or ``Tiles``. For detection, grounding, region captions and
            proposals, and OCR; not with events.
        adapter: the name of the adapter that answers (``Engine.add_adapter``); the base does if it is left out.
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
    tiles: Tiles | str | int | None
    adapter: str | None


def resolve_options(
    options: RequestOptions, defaults: GenerationDefaults, max_answer_tokens: int
) -> tuple[GenerationOptions, dict[str, bool]]:
    """The options of a search and the flags of a request: the checkpoint's defaults, and what the caller sets.

    Args:
        options: the caller's.
        defaults: the checkpoint's.
        max_answer_tokens: the most tokens that an answer of this model can have.

    Raises:
        InvalidOption: an option that there is not, of the wrong type or out of range; ``field`` is its name.
    """
    values: dict[str, Any] = {
        "num_beams": defaults.num_beams,
        "max_new_tokens": min(defaults.max_new_tokens or max_answer_tokens, max_answer_tokens),
        "no_repeat_ngram_size": defaults.no_repeat_ngram_size,
        "length_penalty": defaults.length_penalty,
        "early_stopping": defaults.early_stopping,
    }
    flags = {"scores": False, "auto_orient": True, "allow_unknown_tag": False, "keep_image": True}
    for name, value in options.items():
        if name not in values and name not in flags:
            raise InvalidOption(f"unknown option {name!r}; there are {', '.join([*values, *flags, 'tiles', 'adapter'])}", field=name)
        if value is None:
            continue
        if name in values:
            values[name] = value
        elif (flag := as_flag(value)) is not None:
            flags[name] = flag
        else:
            raise InvalidOption(f"{name} must be True or False, got {shortened(value)}", field=name)
    generation = GenerationOptions(**values)
    if generation.max_new_tokens > max_answer_tokens:
        raise InvalidOption(
            f"max_new_tokens is at most {max_answer_tokens} for this model (its decoder has so many positions), "
            f"got {generation.max_new_tokens}",
            field="max_new_tokens",
        )
    return generation, flags


def check_generation(**values: Any) -> None:
    """Refuse values of ``GenerationOptions`` that are wrong for any model; None stands for the checkpoint's own.

    Raises:
        InvalidOption: a value of the wrong type or out of range; ``field`` is its name.
    """
    GenerationOptions(**{name: value for name, value in values.items() if value is not None})


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
