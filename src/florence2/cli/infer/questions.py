"""The questions of ``florence2 infer``: tasks and prompts in the order given, each with the text or region that it needs.

In: the values of ``--task``, ``--prompt``, ``--text`` and ``--region``. Out: checked questions, or an error that names the option to
change; whether a region lies inside an image is seen with the image. Several texts (or regions) make one question each of a task that
needs one. Knows nothing of images and engines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from florence2.errors import InvalidOption, InvalidPrompt, InvalidRegion, InvalidRequest
from florence2.tasks.naming import task_named, with_tag
from florence2.tasks.table import TASKS, Need, Task

if TYPE_CHECKING:
    from florence2.tiling.tiles import Tiles

Region = tuple[float, ...] | str

_EXAMPLES: dict[Need, str] = {"text": '--text "a red car"', "region": "--region x1,y1,x2,y2"}


class Question(NamedTuple):
    """One question, for every image.

    Attributes:
        prompt: a task's tag, or a free text.
        text: what a task with a text is about.
        region: four pixels or ``<loc_…>`` tokens, of a task with a region.
    """

    prompt: str
    text: str | None = None
    region: Region | None = None

    @property
    def title(self) -> str:
        """The question on one line for people."""
        region = ",".join(f"{value:g}" for value in self.region) if isinstance(self.region, tuple) else self.region
        return " ".join(part for part in (self.prompt, self.text, region) if part)


def read_questions(
    options: Sequence[tuple[str, str]], texts: Sequence[str], regions: Sequence[str], *, allow_unknown_tag: bool
) -> list[Question]:
    """The questions in the order of their options.

    Args:
        options: ``task`` or ``prompt`` and its value, for each of these options.
        texts: the values of ``--text``.
        regions: the values of ``--region``.
        allow_unknown_tag: what is no tag as the table writes it is free text.

    Raises:
        InvalidRequest: nothing is asked, a task or prompt is wrong, or a text or region is missing or goes with none of them.
    """
    if not options:
        raise InvalidPrompt("nothing is asked: give --task (such as --task caption, see florence2 infer --help) or --prompt", field="task")
    given: dict[Need, Sequence[str | Region]] = {"text": texts, "region": [_region(words) for words in regions]}
    questions: list[Question] = []
    used: set[Need] = set()
    for option, words in options:
        for prompt in _prompts(option, words, allow_unknown_tag):
            for question in _expanded(option, prompt, given, used):
                _check(question, allow_unknown_tag)
                questions.append(question)
    for need in given:
        if given[need] and need not in used:
            raise InvalidPrompt(_unused(need), field=need)
    return questions


def hints(questions: Sequence[Question]) -> list[str]:
    """What may be meant otherwise: classes that are parted by commas, which the model reads as one phrase."""
    lists = [question.text for question in questions if question.prompt == "<OPEN_VOCABULARY_DETECTION>" and "," in (question.text or "")]
    return [
        f'--text "{text}" is one phrase to the model; several classes are --text "{"<and>".join(re.split(r", *", text))}", '
        "or a --text for each"
        for text in lists
        if text is not None
    ]


def names_that_need(need: Need) -> str:
    """The tasks with a text, or those with a region, as ``--task`` takes them."""
    return ", ".join(task.name for task in TASKS.values() if task.needs == need)


def _prompts(option: str, words: str, allow_unknown_tag: bool) -> list[str]:
    """The prompts of one option: several tasks may stand behind it, separated by commas."""
    if option == "task":
        return [task_named(name).tag for name in words.split(",")]
    if allow_unknown_tag:
        return [words]
    tags = [with_tag(name) for name in words.split(",")]
    return tags if all(tag in TASKS for tag in tags) else [with_tag(words)]


def _expanded(option: str, prompt: str, given: dict[Need, Sequence[str | Region]], used: set[Need]) -> Iterator[Question]:
    """A question for each text or region of a task that needs one and does not have it yet; the need is then noted as used."""
    tags = [tag for tag in TASKS if tag in prompt]
    task = TASKS[tags[0]] if len(tags) == 1 else None
    inline = prompt.replace(task.tag, "").strip() if task else ""
    if task is None or task.needs is None:
        yield Question(prompt if task is None or inline else task.tag)
    elif inline:
        yield Question(task.tag, text=inline) if task.needs == "text" else Question(task.tag, region=_region(inline))
    elif not given[task.needs]:
        raise InvalidPrompt(f"{_name(option, task)} needs a {task.needs}: add {_EXAMPLES[task.needs]}", field=task.needs)
    else:
        used.add(task.needs)
        for value in given[task.needs]:
            yield Question(task.tag, str(value)) if task.needs == "text" else Question(task.tag, region=value)


def _name(option: str, task: Task) -> str:
    """A task by the name that the command line gave it."""
    return f"--task {task.name}" if option == "task" else task.tag


def _check(question: Question, allow_unknown_tag: bool) -> None:
    """Refuse a question that is wrong for every image.

    Raises:
        InvalidRequest: in the words of the command line.
    """
    from florence2.tasks.prompt import parse_prompt

    tags = [tag for tag in TASKS if tag in question.prompt]
    if len(tags) == 1 and TASKS[tags[0]].needs is None and question.prompt != tags[0]:
        rest = question.prompt.replace(tags[0], "").strip()
        raise InvalidPrompt(
            f"{tags[0]} takes no text, got {rest[:80]!r} with it; to find what a text names: --task open-vocabulary-detection "
            f"--text {rest[:80]!r}. To ask it as free text: --allow-unknown-tag",
            field="prompt",
        )
    try:
        parse_prompt(question.prompt, text=question.text, region=question.region, allow_unknown_tag=allow_unknown_tag)
    except InvalidRequest as error:
        message = re.sub(r"^(prompt|text|region) must", r"--\1 must", error.message)
        message = message.replace("send one request per task", "give each an option of its own: --task or --prompt")
        raise error.with_message(message) from None


def tiles_for(
    questions: Sequence[Question], tiles: str | None, overlap: float | None, tiles_only: bool, *, stream: bool, allow_unknown_tag: bool
) -> Tiles | None:
    """The tiles that every picture is asked about; None where none are asked for.

    Args:
        questions: what is asked.
        tiles: a grid, or the side of a tile.
        overlap: the share of a tile that its neighbour shows, too.
        tiles_only: the whole picture is not asked about.
        stream: answers are printed while they are generated.
        allow_unknown_tag: as of the engine.

    Raises:
        InvalidOption: they are wrong, or do not go with a question or with streaming.
    """
    from florence2.tasks.prompt import parse_prompt
    from florence2.tiling.tasks import check_tiled
    from florence2.tiling.tiles import read_tiles

    cut = read_tiles(tiles, overlap, tiles_only)
    if cut is not None and stream:
        raise InvalidOption(
            "--stream and --tiles do not go together: answers in tiles are made one at the end; leave one out", field="tiles"
        )
    for asked in questions if cut is not None else ():
        check_tiled(parse_prompt(asked.prompt, text=asked.text, region=asked.region, allow_unknown_tag=allow_unknown_tag))
    return cut


def _unused(need: Need) -> str:
    return f"--{need} goes with a task that needs one ({names_that_need(need)}), and none of those asked for lacks it; leave it out"


def _region(words: str) -> Region:
    """Four numbers, or location tokens as they are."""
    from florence2.tasks.prompt import read_pixels

    if words.lstrip().startswith("<loc_"):
        return words
    try:
        x1, y1, x2, y2 = read_pixels(words)
    except ValueError:
        raise InvalidRegion(f"--region takes four numbers x1,y1,x2,y2 in pixels, got {words!r}", field="region") from None
    return x1, y1, x2, y2
