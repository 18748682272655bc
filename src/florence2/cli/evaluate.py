"""``florence2 evaluate``: options into figures, and figures into lines for people and JSON for programs.

Nothing heavy is imported before the command runs, so that the command line can know it at no cost.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from florence2.cli.datasets import DATA, IMAGES, OWN_TAGS, PROMPT, check_named, read, sound
from florence2.cli.options import Adapter, Device, Model, Precision, chosen_model
from florence2.cli.progress import show_progress
from florence2.cli.tables import aligned
from florence2.console import json_line, notify
from florence2.errors import InvalidOption
from florence2.extras import requires
from florence2.outputs import check_folder, write_new

if TYPE_CHECKING:
    from florence2.evaluation.metrics import Figures

_FIGURES = "evaluation.json"


def evaluate(
    data: Annotated[str, typer.Option("--data", "-d", metavar="DATA", help=DATA)],
    model: Model = None,
    adapter: Adapter = None,
    images: Annotated[Path | None, typer.Option("--images", "-i", metavar="DIR", help=IMAGES)] = None,
    prompt: Annotated[str, typer.Option("--prompt", "-p", help=PROMPT)] = "<OD>",
    allow_unknown_tag: Annotated[bool, typer.Option("--allow-unknown-tag", help=OWN_TAGS)] = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Go on without records that can't be used.")] = False,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="At most so many images.")] = None,
    beams: Annotated[int | None, typer.Option("--beams", "-b", help="Beams of the search; 1 is greedy. Default: the checkpoint's.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest answer in tokens. Default: the checkpoint's.")] = None,
    precision: Precision = "auto",
    device: Device = "auto",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help=f"Write the figures to {_FIGURES} in this folder.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure a model on a data set, by the figures of each task."""
    with requires("evaluate", "florence2 evaluate"):
        from florence2.engine.engine import load
        from florence2.engine.options import GenerationOptions
        from florence2.evaluation.evaluation import check
        from florence2.evaluation.evaluation import evaluate as measure
        from florence2.evaluation.metrics import check_installed

        check_installed()
    search: dict[str, Any] = {"num_beams": beams, "max_new_tokens": max_new_tokens}
    GenerationOptions(**{name: value for name, value in search.items() if value is not None})
    check_named([], [data], images)
    if output is not None:
        _check_output(output)
    reading = {"images": images, "prompt": prompt, "own_tags": allow_unknown_tag, "limit": limit, "for_training": False}
    records = sound(read(data, **reading), skip_bad)
    model = chosen_model(model)
    with load(model, device=device, precision=precision, adapters=adapter or ()) as engine:
        records = sound(check(engine, records, data), skip_bad)
        with show_progress("answers", len(records)) as progress:
            figures = measure(engine, records, progress=progress.update, **search)
        settings = {
            "model": model,
            "adapters": adapter or [],
            "data": data,
            "precision": engine.precision,
            "beams": beams or engine.checkpoint.generation.num_beams,
        }
    content = {"settings": settings, "figures": as_json(figures)}
    print(json_line(content) if json_ else "\n".join(table(figures)), flush=True)
    if output is not None:
        path = write_new(output, *os.path.splitext(_FIGURES), json.dumps(content, indent=1) + "\n")
        notify(f"the figures are in {path}")


def _check_output(folder: Path) -> None:
    """Refuse a folder that can't be made or written.

    Raises:
        InvalidOption: what is in the way, or what is meant for a file.
    """
    if folder.suffix == ".json" and not folder.exists():
        raise InvalidOption(f"--output takes the folder in which {_FIGURES} is made, got the file {folder}", field="output")
    check_folder(folder, "output")


def table(figures: Figures) -> Iterator[str]:
    """Figures for people: a line each."""
    rows = [(tag, name, f"{one.value:.3f}", str(one.count)) for tag, named in figures.items() for name, one in named.items()]
    return aligned([("TASK", "FIGURE", "VALUE", "MEASURED ON"), *rows])


def as_json(figures: Figures) -> dict[str, dict[str, dict[str, float]]]:
    """Figures for programs."""
    return {
        tag: {name: {"value": round(one.value, 4), "count": one.count} for name, one in named.items()} for tag, named in figures.items()
    }
