"""From what a caller asks to the sentence that the model sees.

In: a prompt (a tag, a tag with its text or region behind it, or free text), and the text or region where they are given
apart. Out: a ``Prompt``, parsed once: whatever is wrong with the words is refused here, and whether a region in pixels lies
inside its image when the prompt is bound to the image's size. It knows the table of tasks and no token ids.
"""

from __future__ import annotations

import difflib
import numbers
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from florence2.errors import InvalidPrompt, InvalidRegion, UnknownTask
from florence2.results import Kind
from florence2.tasks.coordinates import check_image_size, quantize
from florence2.tasks.naming import TAG_LIKE, meant_tag, tag_named
from florence2.tasks.table import TASKS, Task
from florence2.tasks.vocabulary import ADDED_TOKENS, NUM_BINS, STRUCTURAL, location_token

Region = str | Sequence[float]

UNBOUND_REGION = 4 * location_token(0)
"""What a sentence holds instead of a region in pixels until the image's size is known: as many tokens as there will be."""

_FARTHEST = 1e9  # more pixels than any image is wide
_LOCATIONS = re.compile(r"(?:<loc_(?:0|[1-9][0-9]{0,2})>){4}")
_LONGEST_TAG = 20  # in a message, which lists all tags besides
_FREE_TOKENS = frozenset(ADDED_TOKENS) | {"<unk>", "<mask>"}


@dataclass(frozen=True)
class Prompt:
    """A parsed prompt.

    Attributes:
        task_key: The one key of the answer's dictionary: the tag, or for free text everything up to the first ``>`` and a ``>``.
        tag: The task's tag, or None for free text.
        sentence: What the tokenizer gets.
        kind: What the result will hold.
        argument: The task's text, or its region as location tokens; empty where the task needs neither.
        region: A region in pixels that is not bound to an image yet: ``sentence`` and ``argument`` hold ``UNBOUND_REGION`` instead.
            None for every other prompt.
    """

    task_key: str
    tag: str | None
    sentence: str
    kind: Kind
    argument: str = ""
    region: tuple[float, ...] | None = None

    @property
    def inline(self) -> str:
        """The prompt as one string: the tag with its text or region behind it, or the free text."""
        return self.sentence if self.tag is None else self.tag + self.argument

    def region_bins(self, image_size: Sequence[int]) -> list[int]:
        """The location bins of the unbound region in an image of this size: four, or none where no region is to be bound.

        Args:
            image_size: Width and height in pixels.

        Raises:
            InvalidRegion: The region is not inside the image.
            InvalidOption: ``image_size`` is not two whole numbers of at least 1.
        """
        if self.region is None:
            return []
        width, height = check_image_size(image_size)
        x1, y1, x2, y2 = pixels = tuple(_at_the_edge(value, (width, height)[index % 2]) for index, value in enumerate(self.region))
        if not (0 <= x1 <= x2 and 0 <= y1 <= y2):
            raise _corner_error(pixels)
        if not (x2 <= width and y2 <= height):
            raise InvalidRegion(f"a region is x1, y1, x2, y2 inside its image of {width} x {height} pixels; got {pixels}", field="region")
        return quantize(pixels, (width, height))

    def bind(self, image_size: Sequence[int]) -> Prompt:
        """The prompt for an image of this size: a region in pixels becomes location tokens; any other prompt is returned as it is.

        Arguments and errors are those of ``region_bins``.
        """
        bins = self.region_bins(image_size)
        if not bins:
            return self
        tokens = "".join(map(location_token, bins))
        return replace(self, sentence=self.sentence.replace(UNBOUND_REGION, tokens), argument=tokens, region=None)


def parse_prompt(prompt: str, *, text: str | None = None, region: Region | None = None, allow_unknown_tag: bool = False) -> Prompt:
    """The parsed prompt of a request whose image may not be there yet; ``Prompt.bind`` fits its region to the image.

    Args:
        prompt: A tag, a tag and its text or ``<loc_…>`` region, or free text, which goes to the model as it is.
        text: The text of a task that needs one, when it does not stand in ``prompt``.
        region: Four pixels x1, y1, x2, y2 of the original image (always pixels, never fractions of it), or
            ``<loc_x1><loc_y1><loc_x2><loc_y2>``. What lies less than a pixel outside the image counts as its edge.
        allow_unknown_tag: Let a prompt pass as free text although it begins like a tag that is none of the fifteen, or is the name of
            one: the own tags and prompts of fine-tuned checkpoints.

    Raises:
        UnknownTask: The prompt begins with a tag that is none of the fifteen, or is a tag whose brackets are missing or escaped.
        InvalidPrompt: Text or region missing, given twice or not wanted; more than one tag; tokens that frame the input.
        InvalidRegion: The region is no box of any image.
    """
    _check_text(prompt, "prompt")
    if text is not None:
        _check_text(text, "text")
    tags = [tag for tag in TASKS if tag in prompt]
    if len(tags) > 1:
        raise InvalidPrompt(f"expected one task tag, got {len(tags)}: {', '.join(tags)}; send one request per task", field="prompt")
    if not tags:
        return _free_prompt(prompt, text, region, allow_unknown_tag)
    task = TASKS[tags[0]]
    inline = prompt.replace(task.tag, "").strip()
    if task.needs is None:
        _refuse_additions(task, prompt, text, region)
        return Prompt(task.tag, task.tag, task.template, task.kind)
    if task.needs == "text":
        argument = _task_text(task, inline, text, region)
        return Prompt(task.tag, task.tag, task.template.format(text=argument), task.kind, argument)
    found = _task_region(task, inline, text, region)
    tokens, pixels = (found, None) if isinstance(found, str) else (UNBOUND_REGION, found)
    return Prompt(task.tag, task.tag, task.template.format(region=tokens), task.kind, tokens, pixels)


def build_prompt(
    prompt: str,
    *,
    text: str | None = None,
    region: Region | None = None,
    image_size: Sequence[int] | None = None,
    allow_unknown_tag: bool = False,
) -> Prompt:
    """The prompt for one request: parsed, and bound to its image's size.

    Args:
        prompt: As in ``parse_prompt``, and so are ``text``, ``region`` and ``allow_unknown_tag``.
        text: The text of a task that needs one.
        region: The region of a task that needs one.
        image_size: Width and height in pixels; needed for a region in pixels.
        allow_unknown_tag: Let a tag that is none of the fifteen pass as free text.

    Raises:
        InvalidRequest: As in ``parse_prompt`` (``UnknownTask``, ``InvalidPrompt``, ``InvalidRegion``).
        InvalidRegion: The region is not a box inside the image, or is in pixels and ``image_size`` is None.
    """
    parsed = parse_prompt(prompt, text=text, region=region, allow_unknown_tag=allow_unknown_tag)
    if parsed.region is None:
        return parsed
    if image_size is None:
        raise InvalidRegion("a region in pixels needs the image's size; give image_size=(width, height)", field="region")
    return parsed.bind(image_size)


def expand_prompt(
    prompt: str,
    *,
    text: str | None = None,
    region: Region | None = None,
    image_size: Sequence[int] | None = None,
    allow_unknown_tag: bool = False,
) -> str:
    """The sentence that the model sees; arguments and errors as in ``build_prompt``."""
    built = build_prompt(prompt, text=text, region=region, image_size=image_size, allow_unknown_tag=allow_unknown_tag)
    return built.sentence


def _check_text(value: object, field: str) -> None:
    if not isinstance(value, str):
        raise InvalidPrompt(f"{field} must be a string; got {type(value).__name__}", field=field)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidPrompt(f"{field} holds half a surrogate pair, which is no character; send valid Unicode", field=field) from None
    for token in STRUCTURAL:
        if token in value:
            raise InvalidPrompt(f"{field} must not hold {token}, which frames the model's input; leave it out", field=field)


def _free_prompt(prompt: str, text: str | None, region: Region | None, allow_unknown_tag: bool) -> Prompt:
    match = TAG_LIKE.match(prompt)
    if match and not allow_unknown_tag:
        found, name = match.groups()
        if tag_named(name) in TASKS or found not in _FREE_TOKENS:
            raise _unknown_task(found, name)
    meant = None if allow_unknown_tag else meant_tag(prompt)
    if meant is not None:
        raise UnknownTask(
            f"the prompt {shortened(prompt)} is not a task tag, but reads like one; did you mean {meant}? As free text it passes with "
            "allow_unknown_tag=True.",
            field="prompt",
        )
    for field, value in (("text", text), ("region", region)):
        if value is not None:
            raise InvalidPrompt(
                f"{field} goes with a task tag, and the prompt {shortened(prompt)} has none; "
                f"put a tag in front ({', '.join(_tags_that_need(field))}) or leave {field} out",
                field=field,
            )
    return Prompt(prompt.split(">")[0] + ">", None, prompt, "text")


def _tags_that_need(need: str) -> list[str]:
    return [task.tag for task in TASKS.values() if task.needs == need]


def _unknown_task(found: str, name: str) -> UnknownTask:
    closest = difflib.get_close_matches(tag_named(name).strip("<>"), [tag.strip("<>") for tag in TASKS], n=1)
    hint = f"; did you mean <{closest[0]}>?" if closest else "."
    shown = found if len(found) <= _LONGEST_TAG else f"{found[:_LONGEST_TAG]}…"
    return UnknownTask(
        f"unknown task tag {shown!r}{hint} Expected one of {', '.join(TASKS)}, or free text. "
        "A model's own tag passes with allow_unknown_tag=True.",
        field="prompt",
    )


def _refuse_additions(task: Task, prompt: str, text: str | None, region: Region | None) -> None:
    if prompt.strip() != task.tag:
        raise InvalidPrompt(f"{task.tag} takes no text: it must be the whole prompt; got {shortened(prompt)}", field="prompt")
    for field, value in (("text", text), ("region", region)):
        if value is not None:
            raise InvalidPrompt(
                f"{task.tag} takes no {field}; leave it out (tasks with one: {', '.join(_tags_that_need(field))})", field=field
            )


def _task_text(task: Task, inline: str, text: str | None, region: Region | None) -> str:
    if region is not None:
        raise InvalidPrompt(f"{task.tag} takes a text and no region; leave region out", field="region")
    if inline and text is not None:
        raise InvalidPrompt(f"{task.tag} has a text in the prompt and another in text=; give one of them", field="text")
    wanted = inline or (text or "").strip()
    if not wanted:
        raise InvalidPrompt(f"{task.tag} needs a text: write it behind the tag ({task.tag}a red car) or give text=", field="text")
    if any(tag in wanted for tag in TASKS):
        raise InvalidPrompt(f"the text of {task.tag} must not hold a task tag; got {shortened(wanted)}", field="text")
    return wanted


def _task_region(task: Task, inline: str, text: str | None, region: Region | None) -> str | tuple[float, ...]:
    """The region as four location tokens, or as four pixels that may lie in an image."""
    if text is not None:
        raise InvalidPrompt(f"{task.tag} takes a region and no text; leave text out or give region=", field="text")
    if inline and region is not None:
        raise InvalidPrompt(f"{task.tag} has a region in the prompt and another in region=; give one of them", field="region")
    wanted = inline if region is None else region
    if isinstance(wanted, str) and not wanted.strip():
        raise InvalidPrompt(
            f"{task.tag} needs a region: four pixels in region=(x1, y1, x2, y2), or {task.tag}<loc_x1><loc_y1><loc_x2><loc_y2>",
            field="region",
        )
    if not isinstance(wanted, str):
        return _pixels(wanted)
    if not _LOCATIONS.fullmatch(wanted.strip()):
        raise _region_error(wanted)
    return wanted.strip()


def read_pixels(text: str) -> list[float]:
    """The numbers of a region that is written as text, such as "10,20,30,40"; brackets around them do not count.

    Raises:
        ValueError: Something in it is no number.
    """
    values = [float(word) for word in re.split(r"[,;\s]+", text.strip().strip("[]").strip())]
    return [int(value) if value.is_integer() else value for value in values]  # whole numbers stay whole in messages


def _pixels(region: Sequence[float]) -> tuple[float, ...]:
    if isinstance(region, (bytes, set, frozenset)):
        raise _region_error(region)
    try:
        # Arrays and tensors give numbers of their own kind otherwise.
        values = tuple(region.tolist() if hasattr(region, "tolist") else region)  # type: ignore[attr-defined]
    except TypeError:
        raise _region_error(region) from None
    if len(values) != 4 or not all(_is_finite_number(value) for value in values):
        raise _region_error(region)
    x1, y1, x2, y2 = pixels = tuple(int(value) if isinstance(value, numbers.Integral) else float(value) for value in values)
    # At an image's edge less than a pixel is forgiven, whatever the image's size.
    if min(x1, y1) <= -1 or x1 - x2 >= 1 or y1 - y2 >= 1:
        raise _corner_error(pixels)
    return pixels


def _at_the_edge(value: float, side: int) -> float:
    """A coordinate; one that is a fraction of a pixel outside its image lies at the edge."""
    inside = min(max(value, 0), side)
    return inside if abs(value - inside) < 1 else value


def _is_finite_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and -_FARTHEST < value < _FARTHEST  # type: ignore[operator]


def _corner_error(pixels: tuple[float, ...]) -> InvalidRegion:
    return InvalidRegion(f"a region is x1, y1, x2, y2 in pixels with 0 ≤ x1 ≤ x2 and 0 ≤ y1 ≤ y2; got {pixels}", field="region")


def _region_error(region: object) -> InvalidRegion:
    return InvalidRegion(
        "a region is four numbers x1, y1, x2, y2 in pixels (a list, not a text), or four tokens <loc_x1><loc_y1><loc_x2><loc_y2> with bins "
        f"0 to {NUM_BINS - 1}; got {shortened(region)}",
        field="region",
    )


def shortened(value: object) -> str:
    """A value for a message: as Python writes it, cut short."""
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."
