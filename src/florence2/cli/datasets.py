"""Data sets as the commands read them: what is wrong with them is told, whole and at once.

In: the names of data sets and how they are to be read. Out: their sound records. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from florence2.cli.progress import show_progress
from florence2.console import notify
from florence2.errors import InvalidOption
from florence2.tasks.naming import with_tag

if TYPE_CHECKING:
    from florence2.datasets.record import DataSet, Record

DATA = "A .jsonl file, a COCO .json file, a folder with train, valid and test, or synthetic:COUNT?seed=S (docs/fine-tune.md)."
IMAGES = "The folder that the images' names are relative to. Default: the data set's own."
PROMPT = "What is asked about the images of a COCO file: od, or open-vocabulary-detection for all its classes."
OWN_TAGS = "Let prompts pass that begin with a tag of your own."


def read(name: str, prompt: str, **reading: Any) -> DataSet:
    """A data set, whatever is wrong with it."""
    from florence2.data_sources import read_source

    with show_progress("images looked at") as progress:
        return read_source(name, prompt=with_tag(prompt), progress=progress.update, **reading)


def check_named(learnt: Sequence[str], measured: Sequence[str], images: Path | None) -> None:
    """Refuse data sets and a folder of images that are not there, before a model is downloaded.

    Raises:
        DatasetError: there is no such data set.
        InvalidOption: there is no such folder.
    """
    from florence2.data_sources import check_source

    if images is not None and not images.is_dir():
        raise InvalidOption(f"images must be a folder, got {str(images)!r}", field="images")
    for name in learnt:
        check_source(name)
    for name in measured:
        check_source(name, for_training=False)


def check_sound(found: Sequence[DataSet], skip_bad: bool) -> None:
    """Tell what is wrong with any of some data sets at once; each must hold something sound."""
    from florence2.datasets.record import DataSet

    whole = DataSet(", ".join(one.name for one in found))
    for one in found:
        whole.records += one.records
        whole.problems += one.problems
        whole.notices += one.notices
    sound(whole, skip_bad)
    for one in found:
        one.sound(skip_bad=True)


def sound(found: DataSet, skip_bad: bool) -> list[Record]:
    """The sound records; what is skipped is told."""
    records = found.sound(skip_bad=skip_bad)
    if found.problems:
        for problem in found.problems:
            notify(str(problem))
        notify(f"{found.name}: skipped {len(found.problems)}, {len(records)} valid")
    for what, count in found.notices.items():
        notify(f"{found.name}: {count} {what}")
    return records
