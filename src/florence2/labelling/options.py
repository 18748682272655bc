"""What a labelling run is asked to do: its questions, the search behind them, and what is made of the answers.

In: the values of a user's flags. Out: ``LabelOptions``, checked, in two groups. What is *asked* decides the answers: it stands in the
journal, and a run can't go on with another. What is *written* (filters, formats, splits) is applied to the answers afterwards, so that it
may change at any time and no question is asked again. Knows no files and no engine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from florence2.console import shown
from florence2.datasets.writers import FORMATS, ImagePlacing
from florence2.errors import InvalidOption, UnknownTask
from florence2.labelling.class_names import merged, read_class_map
from florence2.tasks.naming import task_named
from florence2.tasks.table import TASKS
from florence2.tiling.tiles import read_tiles

CaptionName = Literal["caption", "detailed-caption", "more-detailed-caption"]

_ASKED = {"group": "asked"}
_WRITTEN = {"group": "written"}
_FLAGS = {"tasks": "task", "texts": "text", "num_beams": "beams", "formats": "format"}


@dataclass(frozen=True)
class LabelOptions:
    """The options of a labelling run.

    Scores are always asked for, as they cost next to nothing, so that a threshold can be set or changed afterwards.

    Attributes:
        tasks: names or tags of tasks, each about the whole picture.
        texts: what tasks with a text are about, each a question of its own.
        classes: names to be found, each by a question of its own; their ids in this order. Names that differ in case or spaces are one.
        phrases_from: the kind of caption whose phrases are then found; None for none.
        num_beams: as of an engine's request, and so are the next two; None is the checkpoint's own.
        max_new_tokens: see there.
        no_repeat_ngram_size: see there.
        tiles: how pictures are cut into tiles that are asked as well, such as "2x2" or "640"; None for whole pictures alone.
        tile_overlap: how much neighbouring tiles share, as a part of a tile's side; None for the default.
        formats: what is written.
        images: where written formats have their pictures: "link", "copy", or "leave" where they are.
        segments: whether outlines are written where a format has a place for them; None leaves it to the format.
        scores: whether objects have their scores in the formats that can hold them.
        min_score: objects below it are left out, 0 to 1; None for all.
        class_map: other names for classes, "" to leave a class out; several classes may become one.
        min_size: objects with a shorter side below it are left out: pixels, or a part of the picture's side as "2%"; None for all.
        suppress_overlaps: of two objects of different classes whose boxes have at least this IoU, the one with the lower score is left out.
        val_share: the part of the pictures that is held out for validation, 0 to under 1.
        seed: of the choice of these.
        notices: what was taken although it is not as it should be.
    """

    tasks: Sequence[str] = field(default=(), metadata=_ASKED)
    texts: Sequence[str] = field(default=(), metadata=_ASKED)
    classes: Sequence[str] = field(default=(), metadata=_ASKED)
    phrases_from: str | None = field(default=None, metadata=_ASKED)
    num_beams: int | None = field(default=None, metadata=_ASKED)
    max_new_tokens: int | None = field(default=None, metadata=_ASKED)
    no_repeat_ngram_size: int | None = field(default=None, metadata=_ASKED)
    tiles: str | None = field(default=None, metadata=_ASKED)
    tile_overlap: float | None = field(default=None, metadata=_ASKED)
    formats: Sequence[str] = field(default=("jsonl",), metadata=_WRITTEN)
    images: str = field(default="link", metadata=_WRITTEN)
    segments: bool | None = field(default=None, metadata=_WRITTEN)
    scores: bool = field(default=False, metadata=_WRITTEN)
    min_score: float | None = field(default=None, metadata=_WRITTEN)
    class_map: Mapping[str, str] = field(default_factory=dict, metadata=_WRITTEN)
    min_size: float | str | None = field(default=None, metadata=_WRITTEN)
    suppress_overlaps: float | None = field(default=None, metadata=_WRITTEN)
    val_share: float = field(default=0.1, metadata=_WRITTEN)
    seed: int = field(default=0, metadata=_WRITTEN)
    notices: tuple[str, ...] = field(default=(), init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Bring values into their plain forms, and refuse what can't be.

        Raises:
            InvalidRequest: a value that can't be, or two that don't go together; ``field`` is the name of the first.
        """
        classes, notices = merged(self.classes)
        plain = {
            "tasks": tuple(task_named(name).tag for word in self.tasks for name in word.split(",")),
            "texts": tuple(" ".join(text.split()) for text in self.texts),
            "classes": classes,
            "phrases_from": None if self.phrases_from is None else _caption(self.phrases_from),
            "formats": tuple(
                dict.fromkeys(_one_of("formats", word.strip(), tuple(FORMATS)) for words in self.formats for word in words.split(","))
            ),
            "images": _one_of("images", self.images, get_args(ImagePlacing)),
            "class_map": read_class_map(self.class_map),
            "notices": notices,
        }
        for name, value in plain.items():
            object.__setattr__(self, name, value)
        _check_numbers(self)
        _check_questions(self)
        if classes:
            _check_class_map(self)

    @property
    def asked(self) -> dict[str, Any]:
        """What decides the answers, as JSON; options that are not set are left out."""
        return {name: value for name, value in _group(self, "asked").items() if value not in (None, [])}

    @property
    def written(self) -> dict[str, Any]:
        """What is made of the answers, as JSON."""
        return _group(self, "written")

    @property
    def search(self) -> dict[str, Any]:
        """The options of each request to an engine."""
        names = ("num_beams", "max_new_tokens", "no_repeat_ngram_size")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


def options_of(asked: Mapping[str, Any], written: Mapping[str, Any]) -> LabelOptions:
    """The options whose ``asked`` and ``written`` these are; names that this version does not know are passed over."""
    known = {each.name for each in fields(LabelOptions) if each.init}
    return LabelOptions(**{name: value for name, value in {**written, **asked}.items() if name in known})


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The flags under which ``asked`` of a journal differs from that of the present run, each with both values; none where they agree.

    The order of tasks and texts does not count; that of classes does, as it gives their ids.
    """
    names = list(dict.fromkeys([*now, *before]))
    return [
        f"--{_FLAGS.get(name, name).replace('_', '-')} was {_said(before.get(name))} and is {_said(now.get(name))}"
        for name in names
        if _compared(name, before.get(name)) != _compared(name, now.get(name))
    ]


def differences(header: Mapping[str, Any], asked: Mapping[str, Any], model: str) -> list[str]:
    """The flags under which what was asked differs from what is to be; none where a run may go on."""
    changed = changes(header["asked"], asked)
    if header.get("model") != model:
        changed.append(f"--model was {header.get('model')} and is {model}")
    return changed


def refused(folder: object, changed: Sequence[str]) -> InvalidOption:
    """The error on a run that asks something else."""
    return InvalidOption(
        f"the pictures in {shown(folder)} were asked something else: {shown('; '.join(changed))}. "
        "Go on with what it was, or choose another --output",
        field="output",
    )


def _compared(name: str, value: Any) -> Any:
    return sorted(map(str, value)) if name in ("tasks", "texts") and isinstance(value, list) else value


def _said(value: Any) -> str:
    if value is None:
        return "not given"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _group(options: LabelOptions, group: str) -> dict[str, Any]:
    values = {each.name: getattr(options, each.name) for each in fields(options) if each.metadata.get("group") == group}
    return {
        name: list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value
        for name, value in values.items()
    }


def _one_of(name: str, word: str, words: Sequence[str]) -> str:
    if word not in words:
        raise InvalidOption(f"{name} must be one of {', '.join(words)}; got {word!r}", field=name)
    return word


def _caption(word: str) -> str:
    """The name of a task that answers with a caption."""
    with suppress(UnknownTask):  # the names of captions are told below
        word = task_named(word).name
    return _one_of("phrases_from", word, get_args(CaptionName))


def _check_numbers(options: LabelOptions) -> None:
    for name in ("min_score", "suppress_overlaps"):
        value = getattr(options, name)
        if value is not None and not (_is_number(value) and 0 <= value <= 1):
            raise InvalidOption(f"{name} must be from 0 to 1, got {value!r}", field=name)
    if options.suppress_overlaps == 0:
        raise InvalidOption(
            "suppress_overlaps must be more than 0: the IoU from which two objects are one, such as 0.7", field="suppress_overlaps"
        )
    if not (_is_number(options.val_share) and 0 <= options.val_share < 1):
        raise InvalidOption(f"val_share must be at least 0 and under 1, got {options.val_share!r}", field="val_share")
    read_tiles(options.tiles, options.tile_overlap)
    if options.min_size is not None:
        size_limit(options.min_size)


def size_limit(words: float | str) -> tuple[float, bool]:
    """The smallest side of an object, and whether it is a part of the picture's side instead of pixels.

    Raises:
        InvalidOption: it is neither.
    """
    text = str(words).strip()
    try:
        number = float(text.removesuffix("%").strip())
    except ValueError:
        number = math.nan
    is_part = text.endswith("%")
    if not 0 <= number < (100 if is_part else math.inf):
        raise InvalidOption(
            f"min_size must be pixels, such as 8, or a part of the picture's side, such as 2%; got {text!r}", field="min_size"
        )
    return (number / 100, True) if is_part else (number, False)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_questions(options: LabelOptions) -> None:
    """Refuse questions that go not together, or need what is not given."""
    tasks = [TASKS[tag] for tag in options.tasks]
    sources = [name for name in ("classes", "phrases_from") if getattr(options, name)]
    if not tasks and not sources:
        raise InvalidOption("nothing is asked: give task= (such as od), classes= or phrases_from", field="task")
    if len(sources) > 1:
        raise InvalidOption("phrases_from and classes= both say what is to be found; leave one of them out", field="phrases_from")
    for task in tasks:
        if task.needs == "region":
            raise InvalidOption(
                f"task {task.name} is about a region of one picture, and each picture is asked the same; leave it out", field="task"
            )
        if sources and task.kind != "text":
            flag = "classes=" if options.classes else "phrases_from"
            raise InvalidOption(
                f"task {task.name} finds objects, and so does {flag}; make two runs, or leave one of them out", field="task"
            )
        if task.needs == "text" and not options.texts:
            raise InvalidOption(f"task {task.name} needs a text: add text=, such as 'a red car', or give classes=", field="text")
    if options.texts and not any(task.needs == "text" for task in tasks):
        named = ", ".join(task.name for task in TASKS.values() if task.needs == "text")
        raise InvalidOption(f"text goes with a task that needs one ({named}), and none is asked; leave text out", field="text")
    if not all(options.texts):
        raise InvalidOption("text is empty; give words, or leave it out", field="text")


def _check_class_map(options: LabelOptions) -> None:
    """Refuse a map of classes that nobody asks for, or that leaves none."""
    from florence2.labelling.class_names import key_of

    asked = {key_of(name) for name in options.classes}
    strange = [name for name in options.class_map if name not in asked]
    if strange:
        raise InvalidOption(f"class_map names {strange[0]!r}, which is none of the classes {', '.join(options.classes)}", field="class_map")
    if all(options.class_map.get(name) == "" for name in asked):
        raise InvalidOption("class_map leaves no class; keep one", field="class_map")
