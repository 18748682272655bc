"""The output of ``florence2 label``: progress on standard error, and at the end what came out, for people or for programs.

In: counts while the run goes on, and its summary. Out: lines, and the exit code. Knows nothing of the run itself.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from florence2.cli.progress import Progress, show_progress
from florence2.cli.tables import aligned
from florence2.console import json_line, name_of, shown

if TYPE_CHECKING:
    from florence2.cluster.labelling import StoredSummary
    from florence2.labelling.run import LabelSummary


@contextmanager
def counted() -> Iterator[Callable[[int, int | None, int], None]]:
    """A function that shows how many pictures are done, from the first one on: what is loaded before has a bar of its own."""
    with ExitStack() as stack:
        progress: list[Progress] = []

        def show(num_done: int, total: int | None, num_problems: int) -> None:
            if num_done and not progress:
                progress.append(stack.enter_context(show_progress("pictures", total)))
            if progress:
                note = f"{num_problems} {'problem' if num_problems == 1 else 'problems'}" if num_problems else ""
                progress[0].update(num_done, total, note)

        yield show


def print_summary(summary: LabelSummary | StoredSummary, *, as_json: bool) -> None:
    """Print what came out."""
    print(json_line(_as_dict(summary)) if as_json else "\n".join(_lines(summary)), flush=True)


def _as_dict(summary: LabelSummary | StoredSummary) -> dict[str, object]:
    """The summary for programs."""
    return {
        "output": name_of(summary.folder),
        "pictures": summary.num_pictures,
        "objects": summary.num_objects,
        "new": summary.num_new,
        "problems": summary.num_problems,
        "problems_file": None if summary.problems is None else name_of(summary.problems),
        "formats": {name: name_of(path) for name, path in summary.outputs.items()},
        "sheets": [name_of(path) for path in summary.sheets],
        "stopped": summary.is_stopped,
    }


def _lines(summary: LabelSummary | StoredSummary) -> Iterator[str]:
    """The summary for people."""
    new = "" if summary.num_new == summary.num_pictures else f" ({summary.num_new} new)" if summary.num_new else " (none new)"
    objects = "" if summary.num_objects is None else f", {_counted(summary.num_objects, 'object')}"
    said = f"{_counted(summary.num_pictures, 'picture')}{new}{objects}"
    where = "" if summary.problems is None else f": {shown(summary.problems)}"
    problems = f", {_counted(summary.num_problems, 'problem')}{where}" if summary.num_problems else ""
    yield said + problems
    folder = shown(summary.folder)
    rows = [(name, shown(path)) for name, path in summary.outputs.items()]
    if summary.sheets:
        rows.append(("preview", shown(summary.sheets[0].parent)))
    if "jsonl" in summary.outputs:
        rows.append(("train", f"florence2 train --data {shlex.quote(shown(summary.outputs['jsonl']))} --model MODEL --output RUN"))
    if summary.num_pictures and summary.num_objects is not None:
        rows.append(("look", f"florence2 view {shlex.quote(folder)}"))
    yield from aligned(rows)


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
