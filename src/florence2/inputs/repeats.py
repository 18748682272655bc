"""Inputs without those that come again: a file under a second name, a URL or data URI that was given before.

In: inputs. Out: each file, URL and data URI once, under its first name, and a notice that counts the others. Opens nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from florence2.console import shown
from florence2.inputs.input import Input


def without_repeats(inputs: Sequence[Input], notice: Callable[[str], None]) -> list[Input]:
    """The inputs, each once.

    Args:
        inputs: in their order; of the same file the first counts.
        notice: called with a line where some are left out.
    """
    folders: dict[str, str] = {}
    seen: set[str] = set()
    kept: list[Input] = []
    first_repeat: Input | None = None
    for given in inputs:
        key = identity(given, folders)
        if key in seen:
            first_repeat = first_repeat or given
            continue
        seen.add(key)
        kept.append(given)
    if first_repeat is not None:
        num = len(inputs) - len(kept)
        notice(f"left out {num} {'image that is' if num == 1 else 'images that are'} named twice, the first {shown(first_repeat.shown)}")
    return kept


def identity(given: Input, folders: dict[str, str]) -> str:
    """What two names of the same image have in common: the file without links, or else the name itself."""
    if given.kind != "file":
        return given.id
    path = str(given.path)
    if os.path.islink(path):
        return os.path.realpath(path)
    folder, name = os.path.split(path)
    if folder not in folders:
        folders[folder] = os.path.realpath(folder)
    return os.path.join(folders[folder], name)
