"""One run at a time in a folder: two that began together would write over each other's state and adapter.

In: the folder of a run. Out: the right to write there, which ends with the run or with its process, however that ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from florence2.errors import InvalidOption
from florence2.file_locks import Held, held

LOCK = ".lock"


@contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Be the only run in a folder, which is there.

    Raises:
        InvalidOption: another run, of this process or of another one, is training in it.
    """
    try:
        with held(folder / LOCK):
            yield
    except Held as error:
        raise InvalidOption(f"another run is training in {folder}: wait for its end, or give another folder", field="output") from error


def refuse_beside_a_run(folder: Path) -> None:
    """Refuse a folder in which a run is training; errors as in ``only_run``."""
    if (folder / LOCK).is_file():
        with only_run(folder):
            pass
