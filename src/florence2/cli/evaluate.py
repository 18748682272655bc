"""``florence2 evaluate``: options into a call, and metrics into lines for people and JSON for programs.

Nothing heavy is imported before the command runs, so that the command line can know it at no cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from florence2.cli.datasets import DATA, IMAGES, OWN_TAGS, PROMPT
from florence2.cli.options import Adapter, Device, Model, Precision, chosen_model
from florence2.cli.progress import Progress, show_progress
from florence2.cli.tables import aligned
from florence2.console import json_line, notify
from florence2.extras import requires

if TYPE_CHECKING:
    from florence2.evaluation.metrics import Metrics

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
        from florence2.evaluation.evaluation import evaluate as run
        from florence2.evaluation.metrics import check_installed

        check_installed()
    with _counts() as on_progress:
        evaluation = run(
            data,
            model=chosen_model(model),
            adapters=adapter or (),
            images=images,
            prompt=prompt,
            allow_unknown_tag=allow_unknown_tag,
            skip_bad=skip_bad,
            limit=limit,
            num_beams=beams,
            max_new_tokens=max_new_tokens,
            device=device,
            precision=precision,
            output=output,
            on_progress=on_progress,
            on_message=notify,
        )
    print(json_line(evaluation.to_dict()) if json_ else "\n".join(table(evaluation.metrics)), flush=True)
    if evaluation.path is not None:
        notify(f"the figures are in {evaluation.path}")


@contextmanager
def _counts() -> Iterator[Callable[[str, int, int | None], None]]:
    """A function that shows the progress of each count; a bar ends with its count, before the next one begins."""
    with ExitStack() as shown:
        counts: dict[str, Progress] = {}

        def show(what: str, num_done: int, total: int | None) -> None:
            if what not in counts:
                counts[what] = shown.enter_context(show_progress(what, total))
            counts[what].update(num_done, total)
            if num_done == total:
                shown.close()

        yield show


def table(metrics: Metrics) -> Iterator[str]:
    """Metrics for people: a line each."""
    rows = [(tag, name, f"{one.value:.3f}", str(one.count)) for tag, named in metrics.items() for name, one in named.items()]
    return aligned([("TASK", "FIGURE", "VALUE", "MEASURED ON"), *rows])
