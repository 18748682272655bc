"""From the journals and parts of a labelling run to its labelled pictures.

In: a run's folder and the options on what is written. Out: a ``LabelledSet`` whose pictures are read anew on each pass, in the
order of their ids, so that a run that was killed and one that was not give the same. It works on a run that is not at its end. Knows
nothing of formats and writes nothing.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from florence2.datasets.labelled import LabelledPicture, LabelledSet
from florence2.datasets.writers.names import portable_name
from florence2.labelling.answers import read_answers, unreadable
from florence2.labelling.class_names import key_of
from florence2.labelling.examples import examples_of
from florence2.labelling.filters import Filters
from florence2.labelling.names import Named, resolved
from florence2.labelling.options import LabelOptions
from florence2.labelling.pixels import FOLDER
from florence2.labelling.questions import Plan
from florence2.labelling.records import Records
from florence2.version import __version__


@dataclass
class Losses:
    """What of the answers is not in the data set, counted by the reason.

    Attributes:
        objects: what was found and left out.
        examples: answers that are nothing to learn from.
    """

    objects: Counter[str] = field(default_factory=Counter)
    examples: Counter[str] = field(default_factory=Counter)

    def lines(self) -> list[str]:
        """A line for each reason, the most frequent first."""
        said = [f"left out {count} {_plural(count, 'object')} {why}" for why, count in self.objects.most_common()]
        return said + [f"left out {count} {_plural(count, 'answer')} to train on: {why}" for why, count in self.examples.most_common()]


class Pictures:
    """The labelled pictures of a run: what a ``LabelledSet`` reads them with.

    Args:
        folder: the run's.
        options: what is written of the answers.

    Attributes:
        records: what they are made of.
        losses: of one pass over all pictures, once ``classes`` were found.
    """

    def __init__(self, folder: Path, options: LabelOptions) -> None:
        self.records = Records(folder)
        self.losses = Losses()
        self._folder = folder.absolute()
        self._options = options
        self._filters = Filters(options)
        named: list[Named] = []
        draws: list[float] = []
        for record in self.records:
            named.append(self._named(record))
            draws.append(draw_of(record, options.seed))
        self._names = resolved(named)
        self._held_out_below = held_out_below(draws, options.val_share)

    def __iter__(self) -> Iterator[LabelledPicture]:
        """The pictures in the order of their ids."""
        return self._made(Losses())

    def classes(self) -> list[str]:
        """The names of all classes: in the order in which they were asked for, or sorted where no class was asked for."""
        self.losses = Losses()
        found = {thing.label for picture in self._made(self.losses) for thing in picture.objects}
        asked = [self._options.class_map.get(key_of(name), name) for name in self._options.classes]
        return list(dict.fromkeys(filter(None, asked))) or sorted(found, key=lambda name: (name.casefold(), name))

    def unused_names(self) -> list[str]:
        """Names of the class map that nothing was called, once ``classes`` were found."""
        return sorted(self._filters.unused_names)

    def _made(self, losses: Losses) -> Iterator[LabelledPicture]:
        for name, record in zip(self._names, self.records, strict=True):
            yield self._picture(name, record, losses)

    def _picture(self, name: str, record: Mapping[str, Any], losses: Losses) -> LabelledPicture:
        is_by_class = bool(self._options.classes)
        answers = read_answers(record, is_by_class, losses.objects)
        width, height = size = tuple(record["size"])
        kept = self._filters.apply(answers, (width, height), losses.objects)
        return LabelledPicture(
            name=name,
            file=self._file(record),
            size=size,
            objects=kept.objects,
            texts={answer.prompt: answer.text for answer in kept.answers if answer.text is not None},
            examples=examples_of(kept.answers, kept.objects, size, is_by_class=is_by_class, lost=losses.examples),
            split="val" if draw_of(record, self._options.seed) < self._held_out_below else "train",
            where=record["id"],
            num_bytes=None if record.get("file") else record.get("num_bytes"),
        )

    def _file(self, record: Mapping[str, Any]) -> Path:
        """The file with the pixels: where they were saved, the picture's own, or where somebody may have put one that was not saved."""
        saved, own = record.get("file"), record.get("path")
        if saved or own:
            return self._folder / saved if saved else Path(str(own)).absolute()
        if not record.get("url") or not isinstance(record.get("name"), str):
            raise unreadable(record, "it names no file")
        return self._folder / FOLDER / portable_name(record["name"])

    def _named(self, record: Mapping[str, Any]) -> Named:
        if not isinstance(record.get("name"), str):
            raise unreadable(record, "it has no name")
        return Named(record["name"], str(record.get("root") or ""), PurePosixPath(self._file(record).as_posix()).suffix)


def draw_of(record: Mapping[str, Any], seed: int) -> float:
    """The number from 0 to 1 that a picture has drawn, by its name alone; pages and frames of a file have the same."""
    name = str(record["id"])
    if record.get("part") is not None:
        name = name.rpartition("#")[0] or name
    digest = hashlib.sha256(f"{seed}\0{name}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def held_out_below(draws: Sequence[float], share: float) -> float:
    """The number below which pictures are held out for validation: the share, or what leaves each part a picture where there are two.

    Args:
        draws: the numbers that the pictures have drawn.
        share: of the pictures; 0 holds out none.
    """
    low, high = min(draws, default=0.0), max(draws, default=0.0)
    return 0.0 if share == 0 or low == high else min(max(share, math.nextafter(low, 1)), high)


def set_of(pictures: Pictures, options: LabelOptions) -> LabelledSet:
    """The data set of these pictures."""
    info = {
        "version": __version__,
        "model": pictures.records.header.get("model"),
        "prompts": Plan(options).first(),
        "asked": options.asked,
        "written": {name: value for name, value in options.written.items() if name not in ("formats", "images")},
    }
    return LabelledSet(pictures.__iter__, tuple(pictures.classes()), len(pictures.records), info)


def _plural(count: int, noun: str) -> str:
    return noun if count == 1 else f"{noun}s"
