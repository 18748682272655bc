"""Data sets by name: files are read by ``datasets``, and ``synthetic:COUNT?seed=…`` is drawn by ``scenes``.

In: the name that a user gave. Out: a ``DataSet``. The one place that knows both rooms; scenes are imported only for a name of theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from florence2.datasets.reader import check_dataset, read_dataset
from florence2.datasets.record import DataSet

_SYNTHETIC = "synthetic:"


def read_source(
    name: str,
    *,
    images: Path | None = None,
    prompt: str = "<OD>",
    own_tags: bool = False,
    limit: int | None = None,
    progress: Callable[[int], None] | None = None,
    parts: Sequence[str] | None = None,
    for_training: bool = True,
    answered: bool = True,
) -> DataSet:
    """The data set of that name; arguments and errors as in ``read_dataset``, and where the name is one of scenes, ``read_synthetic``."""
    if name.startswith(_SYNTHETIC):
        from florence2.scenes.synthetic import read_synthetic

        return read_synthetic(name, limit=limit, progress=progress, for_training=for_training)
    return read_dataset(
        name,
        images=images,
        prompt=prompt,
        own_tags=own_tags,
        limit=limit,
        progress=progress,
        parts=parts,
        for_training=for_training,
        answered=answered,
    )


def check_source(name: str, *, for_training: bool = True) -> None:
    """Refuse the name of a data set that is not there, without reading one that is.

    Raises:
        DatasetError: there is no such file, or no such scenes.
    """
    if name.startswith(_SYNTHETIC):
        from florence2.scenes.synthetic import parse_synthetic

        parse_synthetic(name, default_seed=0)
    else:
        check_dataset(name, for_training)
