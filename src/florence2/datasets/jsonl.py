"""Files with a question and its answer on each line, or in each entry of a JSON list.

In: a file and its pictures. Out: a ``DataSet``. An entry has image, prompt (or prefix), and answer (or suffix) or objects in pixels;
text and region may stand beside a tag, as in requests. Each entry is read by itself: what is wrong with it is reported with its line.
Knows no folders.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from florence2.datasets.boxes import check_box, write_boxes
from florence2.datasets.captions import as_question, picture_name, rows_of
from florence2.datasets.json_files import Written, kind_of, lines_of, parse_line
from florence2.datasets.pictures import MOVED, FilePicture, Picture, Pictures, Size
from florence2.datasets.record import DataSet, Problem, Record, make_record, with_boxes
from florence2.datasets.round_trip import at_the_edge, grammar_of
from florence2.errors import DatasetError, Florence2Error
from florence2.tasks.prompt import build_prompt, shortened

AT_THE_EDGE = "records with <loc_1000>, which was read as <loc_999>"
_CHATS = ("messages", "conversations")
Entry = tuple[str, Callable[[], Any]]
"""Where an entry stands, and what gives its fields."""


@dataclass(frozen=True)
class JsonlReader:
    """How entries become records.

    Attributes:
        pictures: where the pictures are.
        own_tags: let prompts pass that begin like a tag which is none of the fifteen.
        answered: whether each entry must have an answer.
        prompt: what is asked where an entry holds a caption or boxes and no question.
        notices: what was taken although it is not as it should be, with how often.
    """

    pictures: Pictures
    own_tags: bool
    answered: bool
    prompt: str = "<OD>"
    notices: Counter[str] = field(default_factory=Counter)

    def read(self, name: str, entries: Iterable[Entry], limit: int | None, progress: Callable[[int], None] | None) -> DataSet:
        """The data set of that name; at most ``limit`` pictures, and ``progress`` is called for each."""
        data = DataSet(name, notices=self.notices)
        seen: set[Picture] = set()
        for where, fields in entries:
            try:
                record = self._record(where, fields())
            except Florence2Error as error:
                data.problems.append(Problem(where, error.message))
                continue
            seen.add(record.picture)
            if limit is not None and len(seen) > limit:
                break
            data.records.append(record)
            if progress is not None:
                progress(len(self.pictures))
        data.notices += Counter({MOVED: len(self.pictures.moved)})
        return data

    def _record(self, where: str, fields: Any) -> Record:
        fields = as_question(fields, self.prompt)
        if not isinstance(fields, dict):
            raise DatasetError(f"expected an object with image, prompt and answer, got {kind_of(fields)}: {shortened(fields)}")
        if (chat := next((name for name in _CHATS if name in fields), None)) is not None:
            raise DatasetError(f"expected image, prompt and answer, got {chat}: a chat for another model; export it for Florence-2")
        fields, is_edged = _within(fields)
        prompt = _text(fields, "prompt", "prefix")
        picture = FilePicture(self.pictures.find(_text(fields, "image")))
        size = self.pictures.size(picture.path)
        beside = {name: fields[name] for name in ("text", "region") if fields.get(name) is not None}
        if beside:  # as in requests
            prompt = build_prompt(prompt, **beside, image_size=size, allow_unknown_tag=self.own_tags).inline
        if fields.get("objects") is not None:
            record = self._objects(where, picture, size, prompt, fields["objects"])
        else:
            record = make_record(where, picture, size, prompt, _answers(fields, self.answered), own_tags=self.own_tags)
        self.notices.update([AT_THE_EDGE] * is_edged)
        return record

    def _objects(self, where: str, picture: FilePicture, size: Size, prompt: str, objects: Any) -> Record:
        """Labels and boxes as an answer; a task that names nothing is answered with the boxes alone."""
        if not isinstance(objects, list) or not all(isinstance(thing, dict) for thing in objects):
            raise DatasetError(f"expected objects as a list of objects with label and box, got {shortened(objects)}")
        empty = make_record(where, picture, size, prompt, [], own_tags=self.own_tags).question
        if empty.kind not in ("boxes", "boxes_or_polygons"):
            raise DatasetError(f"objects go with a task that answers with boxes, such as <OD>; the prompt is {shortened(prompt)}")
        clipped: Counter[str] = Counter()
        has_labels = grammar_of(empty) != "bare_boxes"
        things = [(_label(thing) if has_labels else "", check_box(thing.get("box"), size, clipped)) for thing in objects]
        record = make_record(where, picture, size, prompt, [write_boxes(things, size)], own_tags=self.own_tags)
        record = with_boxes(record, [box for _, box in things], labels=[label for label, _ in things])
        self.notices.update(clipped)
        return record


def entries_of_lines(path: Path) -> Iterator[Entry]:
    """The entries of a file with one on each line."""
    for number, line in enumerate(lines_of(path), start=1):
        if line.strip():
            yield f"{path}:{number}", lambda line=line: parse_line(line)


def entries_of_list(path: Path, content: Iterable[Any]) -> Iterator[Entry]:
    """The entries of a file that is one list."""
    for number, fields in enumerate(content, start=1):
        yield f"{path}: entry {number}", lambda fields=fields: fields


def entries_of_rows(path: Path) -> Iterator[Entry]:
    """The entries of a table."""
    for where, fields in rows_of(path):
        yield where, lambda fields=fields: fields


def names_in_entries(entries: Iterable[Entry]) -> list[str]:
    """The names of the pictures of some entries, of those that can be read."""
    names = []
    for _, fields in entries:
        try:
            names.append(picture_name(fields()))
        except DatasetError:
            continue
    return [name for name in names if name]


def _within(fields: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """The fields with ``<loc_1000>`` as the last bin in questions and answers; and whether there was any."""
    found = False

    def kept(value: Any) -> Any:
        nonlocal found
        if isinstance(value, list):
            return [kept(one) for one in value]
        if not isinstance(value, str):
            return value
        text, is_edged = at_the_edge(value)
        found = found or is_edged
        return text

    names = ("prompt", "prefix", "text", "region", "answer", "suffix")
    return {name: kept(value) if name in names else value for name, value in fields.items()}, found


def _answers(fields: Mapping[str, Any], answered: bool) -> list[str]:
    """The answers as texts; a number is the text that it is written as."""
    answer = fields["answer"] if fields.get("answer") is not None else fields.get("suffix")
    if answer is None and not answered:
        return []
    given = answer if isinstance(answer, list) else [answer]
    if not given:
        raise _no_answer(answer)
    return [_written(one, answer) for one in given]


def _written(value: Any, answer: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        raise DatasetError(
            f"expected answer as a text, got {str(value).lower()} (a boolean); write the words to be said, such as yes or no"
        )
    if isinstance(value, Written):
        return value.digits
    if isinstance(value, int):
        return str(value)
    raise _no_answer(answer)


def _no_answer(answer: Any) -> DatasetError:
    came = "nothing" if answer is None else f"{shortened(answer)} ({kind_of(answer)})"
    return DatasetError(f"expected answer as a text or a list of texts (or objects with label and box), got {came}")


def _label(thing: Mapping[str, Any]) -> str:
    """A thing's label; a number is the text that it is written as."""
    label = thing.get("label")
    if isinstance(label, int) and not isinstance(label, bool):
        return str(label)
    text = label.digits if isinstance(label, Written) else _text(thing, "label").strip()
    if not text:
        raise DatasetError(f"expected label as a text, got {shortened(label)}")
    return text


def _text(fields: Mapping[str, Any], key: str, other: str = "") -> str:
    value = fields[key] if fields.get(key) is not None else fields.get(other)
    if not isinstance(value, str) or not value:
        raise DatasetError(f"expected {key} as a text, got {'nothing' if value is None else shortened(value)}")
    return value
