"""One pass over a labelled set for one format: each picture placed, with the objects that can be written.

In: a labelled set, the folder and the options. Out: entries, one at a time, and at the end what was written. Knows no format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from florence2.datasets.labelled import LabelledPicture, LabelledSet
from florence2.datasets.record import Problem
from florence2.datasets.writers.names import portable_name
from florence2.datasets.writers.objects import WrittenObject, written_objects
from florence2.datasets.writers.placing import place
from florence2.datasets.writers.written import Notices, WriteOptions, Written
from florence2.errors import DatasetError, InvalidImage

Place = Callable[[LabelledPicture], str]
"""Puts a picture where the format has it, and returns its name there; raises ``InvalidImage`` where that can't be done."""


@dataclass(frozen=True)
class Entry:
    """A picture of a data set.

    Attributes:
        picture: as it was labelled.
        file: its name in the folder, or an absolute path where it was left.
        objects: what can be written of its objects.
    """

    picture: LabelledPicture
    file: str
    objects: list[WrittenObject]


class Entries:
    """One pass over a labelled set.

    Args:
        data: what is written.
        folder: the format's.
        options: how it is written.
    """

    def __init__(self, data: LabelledSet, folder: Path, options: WriteOptions) -> None:
        self.notices = Notices()
        self._data, self._folder, self._options = data, folder, options
        self._class_ids = {label: index for index, label in enumerate(data.classes)}
        self._problems: list[Problem] = []
        self._num_pictures = self._num_objects = 0

    def placed(self, name_of: Callable[[LabelledPicture], str]) -> Iterator[Entry]:
        """The pictures in the order of the set, each placed under the name that is given for it."""
        return self.by(lambda picture: place(picture, name_of(picture), self._folder, self._options, self.notices))

    def by(self, put: Place) -> Iterator[Entry]:
        """The pictures in the order of the set, each put where the format has it; those that can't be are listed instead."""
        for picture in self._data.pictures():
            try:
                file = put(picture)
            except InvalidImage as error:
                self._problems.append(Problem(picture.where or picture.name, error.message))
                continue
            objects = written_objects(picture, self._class_ids, self.notices)
            self._num_pictures += 1
            self._num_objects += len(objects)
            yield Entry(picture, file, objects)

    def written(self) -> Written:
        """What was written.

        Raises:
            DatasetError: there were pictures, and none of them could be written, as when a drive is not mounted any more.
        """
        if self._problems and not self._num_pictures:
            first = self._problems[0]
            raise DatasetError(
                f"none of the {len(self._problems)} pictures can be written, so that there is no new data set (is the drive that they lie "
                f"on mounted?); the first is {first}"
            )
        return Written(self._num_pictures, self._num_objects, self.notices.lines(), tuple(self._problems))


def in_split(train: str, val: str) -> Callable[[LabelledPicture], str]:
    """What gives each picture's name in the folder of its part of the data set.

    Args:
        train: the folder of pictures to learn from.
        val: the folder of those that are held out.
    """
    return lambda picture: f"{val if picture.split == 'val' else train}/{portable_name(picture.name)}"
