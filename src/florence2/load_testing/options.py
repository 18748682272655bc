"""What a load test is told, as values: loads, times, sizes and mixes of questions, read from the words of a command line.

In: texts such as ``1,2,4``, ``90s``, ``640x480`` and ``<OD>=2,<OCR>=1``. Out: numbers and ``Question`` values that are checked. Knows
nothing of servers and clocks.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from florence2.errors import InvalidOption
from florence2.tasks.prompt import parse_prompt
from florence2.tasks.table import TASKS

DEFAULT_MIX = "<CAPTION>=4,<OD>=2,<OCR>=1"
_LONGEST_NAME = 40
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|m|min|h)?")
_UNIT_S = {None: 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_WEIGHTED = re.compile(r"\s*(.+?)\s*=\s*([\d.]+)\s*(?:,|$)")
_MOST_PER_S = 100_000.0
_MOST_AT_ONCE = 10_000


@dataclass(frozen=True)
class Question:
    """One kind of question.

    Attributes:
        name: what reports call it: the task's tag, or the beginning of a free prompt.
        prompts: what is sent, one of them at a time.
        weight: how often it is asked, against the others.
    """

    name: str
    prompts: tuple[str, ...]
    weight: float = 1.0


@dataclass(frozen=True)
class Load:
    """How much is asked.

    Attributes:
        kind: ``rate`` (requests a second, whatever becomes of them) or ``concurrency`` (clients that each wait for their answer).
        value: how many.
    """

    kind: str
    value: float

    def __str__(self) -> str:
        return f"{self.value:g} requests/s" if self.kind == "rate" else f"{self.value:g} at once"


def parse_loads(rate: str | None, concurrency: str | None) -> tuple[Load, ...]:
    """The loads, one after the other.

    Args:
        rate: numbers parted by commas, or None.
        concurrency: whole numbers parted by commas, or None.

    Raises:
        InvalidOption: both or neither are given, or one is no such list.
    """
    if rate is not None and concurrency is not None:
        raise InvalidOption("--rate and --concurrency are given; leave one of them out", field="rate")
    if rate is None and concurrency is None:
        raise InvalidOption("say how much is asked: --rate 20 (requests a second) or --concurrency 16 (clients at once)", field="rate")
    if rate is not None:
        wanted = f"--rate must be numbers above 0 and at most {_MOST_PER_S:g}, such as 20 or 1,2,4,8"
        return tuple(Load("rate", value) for value in _numbers(rate, wanted, "rate", _MOST_PER_S))
    wanted = f"--concurrency must be whole numbers from 1 to {_MOST_AT_ONCE}, such as 16 or 1,4,16"
    values = _numbers(concurrency or "", wanted, "concurrency", _MOST_AT_ONCE)
    if not all(value.is_integer() for value in values):
        raise InvalidOption(f"{wanted}; got {concurrency!r}", field="concurrency")
    return tuple(Load("concurrency", value) for value in values)


def _numbers(text: str, wanted: str, field: str, most: float) -> list[float]:
    try:
        values = [float(word) for word in text.split(",")]
    except ValueError:
        values = []
    if not values or not all(0 < value <= most for value in values):
        raise InvalidOption(f"{wanted}; got {text!r}", field=field)
    return values


def parse_duration(text: str, field: str) -> float:
    """The seconds of ``500ms``, ``2s``, ``1.5m``, ``1h``, or of a number alone.

    Args:
        text: the words.
        field: the option that they were given for.

    Raises:
        InvalidOption: they are no time, or one that is not above 0.
    """
    match = _DURATION.fullmatch(text.strip().lower())
    seconds = 0.0 if match is None else float(match[1]) * _UNIT_S[match[2]]
    if not 0 < seconds < math.inf:
        raise InvalidOption(f"--{field.replace('_', '-')} must be a time above 0, such as 30s, 500ms or 2m; got {text!r}", field=field)
    return seconds


def parse_size(text: str) -> tuple[int, int]:
    """Width and height of ``640x480``.

    Raises:
        InvalidOption: it is no size that pictures are drawn in.
    """
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text.strip().lower())
    width, height = (int(match[1]), int(match[2])) if match else (0, 0)
    if min(width, height) < 16 or max(width, height) > 12_000:
        raise InvalidOption(f"--size must be WIDTHxHEIGHT in pixels, each from 16 to 12000, such as 640x480; got {text!r}", field="size")
    return width, height


def parse_questions(mix: str | None, prompts: Sequence[str], texts: Sequence[str]) -> tuple[Question, ...]:
    """The questions with their weights.

    Args:
        mix: tasks with weights, ``<CAPTION>=4,od=2``; a text or region may stand behind a tag. None for the usual ones, where there are
            no prompts either.
        prompts: free texts, sent as they are; each has the weight 1.
        texts: for tasks that need one and have none; one of them is taken at random.

    Raises:
        InvalidRequest: a task that there is none of, a weight that is no number, or a text that is missing or not wanted.
    """
    questions = [] if mix is None and prompts else _mixed(DEFAULT_MIX if mix is None else mix, texts)
    questions += [Question(_shortened(prompt), (prompt,)) for prompt in prompts]
    if texts and not any(len(prompt) > len(one.name) for one in questions for prompt in one.prompts if one.name in TASKS):
        raise InvalidOption("--text is for tasks that need one, and none of --mix does; leave --text out", field="text")
    return tuple(questions)


def _mixed(mix: str, texts: Sequence[str]) -> list[Question]:
    found, end = [], 0
    while match := _WEIGHTED.match(mix, end):
        weight = _weight(match[2], mix)
        found.append(_question(match[1], texts, weight))
        end = match.end()
    if not found or mix[end:].strip():
        raise InvalidOption(f"--mix must be tasks with weights, such as {DEFAULT_MIX}; got {mix!r}", field="mix")
    return found


def _weight(text: str, mix: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = 0.0
    if not 0 < weight < math.inf:
        raise InvalidOption(f"--mix must have weights above 0, got {text!r} in {mix!r}", field="mix")
    return weight


def _question(words: str, texts: Sequence[str], weight: float) -> Question:
    """One task of a mix, by its tag or its name, with what may stand behind the tag."""
    by_name = {task.name: task.tag for task in TASKS.values()}
    tag = by_name.get(words.lower().replace("_", "-"), words)
    task = TASKS.get(tag)
    if task is not None and task.needs == "text":
        if not texts:
            raise InvalidOption(f"{tag} needs a text: give --text, or write it behind the tag in --mix ({tag}a red car=1)", field="text")
        return Question(tag, tuple(f"{tag}{text}" for text in texts), weight)
    if task is not None and task.needs == "region":
        raise InvalidOption(
            f"{tag} needs a region: write it behind the tag in --mix, as {tag}<loc_100><loc_100><loc_800><loc_800>=1", field="mix"
        )
    parsed = parse_prompt(tag)
    return Question(parsed.tag or _shortened(tag), (tag,), weight)


def _shortened(prompt: str) -> str:
    line = " ".join(prompt.split())
    return line if len(line) <= _LONGEST_NAME else f"{line[: _LONGEST_NAME - 1]}…"


def parse_header(text: str) -> tuple[str, str]:
    """Name and value of ``NAME:VALUE``.

    Raises:
        InvalidOption: it is no header. The message does not hold the value, which may be a key.
    """
    name, colon, value = text.partition(":")
    if not colon or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name.strip()) or not (value.isascii() and value.isprintable()):
        raise InvalidOption("--header must be NAME:VALUE in printable ASCII, such as x-request-timeout:5", field="header")
    return name.strip().lower(), value.strip()
