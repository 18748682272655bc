"""From what a caller asks to the sentence that the model sees.

In: a prompt (a tag, a tag with its text or region behind it, or free text), and the text or region where they are given
apart. Out: a :class:`Prompt`, checked, so that nothing behind this line meets a caller's mistake. It knows the table of
tasks and no token ids.
"""

from __future__ import annotations

import difflib
import math
import numbers
import re
from collections.abc import Sequence
from dataclasses import dataclass

from florence2.errors import InvalidPrompt, InvalidRegion, UnknownTask
from florence2.results import Kind
from florence2.tasks.coordinates import check_image_size, quantize
from florence2.tasks.naming import TAG_LIKE, meant_tag, tag_named
from florence2.tasks.table import TASKS, Task
from florence2.tasks.vocabulary import ADDED_TOKENS, STRUCTURAL, location_token

Region = str | Sequence[float]

# An image size that every region fits into, for checking a prompt before its image is there.
ENDLESS = (10**9, 10**9)
_LOCATIONS = re.compile(r"(?:<loc_(?:0|[1-9][0-9]{0,2})>){4}")
_LONGEST_TAG = 20  # in a message, which lists all tags besides
_FREE_TOKENS = frozenset(ADDED_TOKENS) | {"<unk>", "<mask>"}


@dataclass(frozen=True)
class Prompt:
    """A checked prompt.

    Attributes:
        task_key: The one key of the answer's dictionary: the tag, or for free text everything up to the first ``>`` and a ``>``.
        tag: The task's tag, or None for free text.
        sentence: What the tokenizer gets.
        kind: What the result will hold.
    """

    task_key: str
    tag: str | None
    sentence: str
    kind: Kind


def build_prompt(
    prompt: str,
    *,
    text: str | None = None,
    region: Region | None = None,
    image_size: Sequence[int] | None = None,
    allow_unknown_tag: bool = False,
) -> Prompt:
    """The checked prompt for one request.

    Args:
        prompt: A tag, a tag and its text or ``<loc_…>`` region, or free text, which goes to the model as it is.
        text: The text of a task that needs one, when it does not stand in ``prompt``.
        region: Four pixels x1, y1, x2, y2 of the original image (always pixels, never fractions of it), or
            ``<loc_x1><loc_y1><loc_x2><loc_y2>``. What lies less than a pixel outside the image counts as its edge.
        image_size: Width and height in pixels; needed for a region in pixels.
        allow_unknown_tag: Let a prompt pass as free text although it begins like a tag that is none of the fifteen, or is the name of
            one: the own tags and prompts of fine-tuned checkpoints.

    Raises:
        UnknownTask: The prompt begins with a tag that is none of the fifteen, or is a tag whose brackets are missing or escaped.
        InvalidPrompt: Text or region missing, given twice or not wanted; more than one tag; tokens that frame the input.
        InvalidRegion: The region is not a box inside the image.
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
        sentence = task.template
    elif task.needs == "text":
        sentence = task.template.format(text=_task_text(task, inline, text, region))
    else:
        sentence = task.template.format(region=_task_region(task, inline, text, region, image_size))
    return Prompt(task.tag, task.tag, sentence, task.kind)


def expand_prompt(
    prompt: str,
    *,
    text: str | None = None,
    region: Region | None = None,
    image_size: Sequence[int] | None = None,
    allow_unknown_tag: bool = False,
) -> str:
    """The sentence that the model sees; arguments and errors as in :func:`build_prompt`."""
    built = build_prompt(prompt, text=text, region=region, image_size=image_size, allow_unknown_tag=allow_unknown_tag)
    return built.sentence


def prompt_in_one(
    prompt: str,
    *,
    text: str | None = None,
    region: Region | None = None,
    image_size: Sequence[int] | None = None,
    allow_unknown_tag: bool = False,
) -> str:
    """The prompt with its text or region behind its tag, checked; arguments and errors as in `build_prompt`."""
    build_prompt(prompt, text=text, region=region, image_size=image_size, allow_unknown_tag=allow_unknown_tag)
    return prompt + (text or "") + ("" if region is None else region_tokens(region, image_size))


def region_tokens(region: Region, image_size: Sequence[int] | None) -> str:
    """The region as four location tokens.

    Raises:
        InvalidRegion: Neither four ``<loc_…>`` tokens nor four pixels x1 ≤ x2, y1 ≤ y2 inside the image.
    """
    if isinstance(region, str):
        if not _LOCATIONS.fullmatch(region.strip()):
            raise _region_error(region)
        return region.strip()
    pixels = _pixels(region)
    if image_size is None:
        raise InvalidRegion("a region in pixels needs the image's size; give image_size=(width, height)", field="region")
    width, height = check_image_size(image_size)
    pixels = tuple(_at_the_edge(value, (width, height)[index % 2]) for index, value in enumerate(pixels))
    x1, y1, x2, y2 = pixels
    if not (0 <= x1 <= x2 and 0 <= y1 <= y2):
        raise InvalidRegion(f"a region is x1, y1, x2, y2 in pixels with 0 ≤ x1 ≤ x2 and 0 ≤ y1 ≤ y2; got {pixels}", field="region")
    if not (x2 <= width and y2 <= height):
        raise InvalidRegion(f"a region is x1, y1, x2, y2 inside its image of {width} x {height} pixels; got {pixels}", field="region")
    return "".join(location_token(index) for index in quantize(pixels, (width, height)))


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


def _task_region(task: Task, inline: str, text: str | None, region: Region | None, image_size: Sequence[int] | None) -> str:
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
    return region_tokens(wanted, image_size)


def _pixels(region: Sequence[float]) -> tuple[float, ...]:
    try:
        # Arrays and tensors give numbers of their own kind otherwise.
        values = tuple(region.tolist() if hasattr(region, "tolist") else region)  # type: ignore[attr-defined]
    except TypeError:
        raise _region_error(region) from None
    if len(values) != 4 or not all(_is_finite_number(value) for value in values):
        raise _region_error(region)
    return tuple(int(value) if isinstance(value, numbers.Integral) else float(value) for value in values)


def _at_the_edge(value: float, side: int) -> float:
    """A coordinate; one that is a fraction of a pixel outside its image lies at the edge."""
    inside = min(max(value, 0), side)
    return inside if abs(value - inside) < 1 else value


def _is_finite_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


def _region_error(region: object) -> InvalidRegion:
    return InvalidRegion(
        "a region is four numbers x1, y1, x2, y2 in pixels, or four tokens <loc_x1><loc_y1><loc_x2><loc_y2> with bins 0 to 999; "
        f"got {shortened(region)}",
        field="region",
    )


def shortened(value: object) -> str:
    """A value for a message: as Python writes it, cut short."""
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."
