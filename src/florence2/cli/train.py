"""``florence2 train``: options into a run, and a run into lines for people.

Nothing heavy is imported before a command runs, so that the command line can list it at no cost.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from florence2.cli.datasets import DATA, IMAGES, OWN_TAGS, PROMPT
from florence2.cli.options import Adapter, Device, model_option, one_of
from florence2.cli.progress import Progress, show_progress
from florence2.cli.stopping import stopped_softly
from florence2.console import INTERRUPTED, notify, print_path, report
from florence2.extras import requires

if TYPE_CHECKING:
    from florence2.training.options import Outcome, Step

_STOPPING = "stopping after this step; once more stops at once and loses what was learnt since the last state"
_REHEARSE = "What is not to be forgotten: the model keeps the probabilities that it gives the answers. May be repeated."


def train(
    data: Annotated[list[str], typer.Option("--data", "-d", metavar="DATA", help=f"What is learnt. {DATA} May be repeated.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="The run's folder: state, log, loss plot, and what comes out.")
    ],
    model: Annotated[str, model_option("Where to begin: alias, alias@revision, hub id or folder.")],
    adapter: Adapter = None,
    rehearse: Annotated[list[str] | None, typer.Option(metavar="DATA", help=_REHEARSE)] = None,
    images: Annotated[Path | None, typer.Option("--images", "-i", metavar="DIR", help=IMAGES)] = None,
    validation: Annotated[
        str | None, typer.Option(metavar="DATA", help="What the validation loss is measured on. Default: a folder's valid, or a share.")
    ] = None,
    validation_share: Annotated[float, typer.Option(help="Share of the images held out for it, 0 for none.")] = 0.1,
    prompt: Annotated[str, typer.Option("--prompt", "-p", help=PROMPT)] = "<OD>",
    allow_unknown_tag: Annotated[bool, typer.Option("--allow-unknown-tag", help=OWN_TAGS)] = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Go on without records that can't be used.")] = False,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="At most so many images of each data set.")] = None,
    method: Annotated[
        str,
        typer.Option(
            help="lora: low-rank updates, saved as an adapter. full: all weights, saved as a checkpoint.",
            autocompletion=one_of("lora", "full"),
        ),
    ] = "lora",
    freeze_vision: Annotated[
        bool, typer.Option("--freeze-vision", help="Leave the vision tower as it is: faster, and less memory.")
    ] = False,
    rank: Annotated[int, typer.Option(help="Rank of the low-rank updates.")] = 16,
    alpha: Annotated[float, typer.Option(help="The updates are scaled by alpha / rank.")] = 32.0,
    merge: Annotated[bool, typer.Option("--merge", help="Save a whole checkpoint beside the adapter.")] = False,
    epochs: Annotated[int, typer.Option("--epochs", "-e", help="How often each record is seen.")] = 10,
    batch_size: Annotated[int, typer.Option(help="Records whose gradients are computed together.")] = 8,
    accumulate: Annotated[int, typer.Option(help="Such batches in one step: a larger batch in the same memory.")] = 1,
    learning_rate: Annotated[float | None, typer.Option(help="Default: 5e-4 with LoRA, 1e-5 without.")] = None,
    weight_decay: Annotated[float, typer.Option(help="Of matrices.")] = 0.01,
    patience: Annotated[int, typer.Option(min=0, help="Stop after so many epochs without a better validation loss; 0 never does.")] = 3,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="A third more time for a fraction of the memory.")
    ] = False,
    precision: Annotated[
        str, typer.Option(help="auto, fp32, bf16 (products in bf16; weights stay fp32).", autocompletion=one_of("auto", "fp32", "bf16"))
    ] = "auto",
    device: Device = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Of the order of records, the updates and the share held out.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard's files too.")] = False,
) -> None:
    """Fine-tune a checkpoint on your own data: LoRA or all weights."""
    with requires("train", "florence2 train"):
        from florence2.training import FineTuneData, FineTuneOptions
        from florence2.training.fine_tuning import prepare
        from florence2.training.loop import STATE
        from florence2.training.preparation import Reports, Start
        from florence2.training.run_log import PLOT
    options = FineTuneOptions(
        method=method,  # type: ignore[arg-type]
        freeze_vision=freeze_vision,
        rank=rank,
        alpha=alpha,
        epochs=epochs,
        batch_size=batch_size,
        accumulate=accumulate,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        gradient_checkpointing=gradient_checkpointing,
        patience=patience,
        seed=seed,
    )
    sources = FineTuneData(
        tuple(data),
        tuple(rehearse or ()),
        validation=validation,
        validation_share=validation_share,
        images=images,
        prompt=prompt,
        allow_unknown_tag=allow_unknown_tag,
        skip_bad=skip_bad,
        limit=limit,
    )
    prepared = prepare(
        sources,
        options,
        Start(model, tuple(adapter or ()), device),
        output,
        Reports(notify, show_progress),
        precision=precision,
        merge=merge,
        resume=resume,
        tensorboard=tensorboard,
    )
    notify(prepared.summary)
    try:
        with stopped_softly(_STOPPING) as stop, show_progress("steps") as progress:
            outcome = prepared.run(_after_step(progress, stop.is_wanted))
    except KeyboardInterrupt:
        saved = (output / STATE).exists()
        report("stopped; " + ("the same command with --resume goes on" if saved else "no state was saved yet"))
        raise typer.Exit(INTERRUPTED) from None
    _print_outcome(outcome, output / PLOT)


def _after_step(progress: Progress, is_to_stop: Callable[[], bool]) -> Callable[[Step], None]:
    """A function that is called after each step: it shows the loss, and ends the run where a signal was received."""

    def after_step(step: Step) -> None:
        validation = "" if step.validation is None else f"  validation {step.validation:.4f}"
        progress.update(step.number, step.total, f"epoch {step.epoch}  loss {step.loss:.4f}{validation}")
        if is_to_stop():
            raise KeyboardInterrupt

    return after_step


def _print_outcome(outcome: Outcome, plot: Path) -> None:
    """What came out."""
    early = ", stopped early" if outcome.stopped_early else ""
    best = "" if outcome.best is None else f", best validation loss {outcome.best:.4f} after epoch {outcome.best_epoch}"
    print(f"{outcome.steps} steps in {outcome.seconds:.0f} s{early}{best}")
    for path in (*outcome.folders, plot):
        print_path(path)
