"""``florence2 train``: options into a run, and a run into lines for people.

Nothing heavy is imported before a command runs, so that the command line can know it at no cost.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from florence2.cli.datasets import DATA, IMAGES, OWN_TAGS, PROMPT, check_named, check_sound, read, sound
from florence2.cli.options import Adapter, Device, model_option, one_of
from florence2.cli.progress import Progress, show_progress
from florence2.console import notify, print_path, report
from florence2.errors import InvalidOption
from florence2.extras import requires

if TYPE_CHECKING:
    from florence2.datasets.record import DataSet, Record
    from florence2.model import Florence2
    from florence2.tasks.tokenizer import Tokenizer
    from florence2.training.options import FineTuneOptions, Outcome, Step
    from florence2.weights import Checkpoint

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
        from florence2.engine.threads import import_torch

        import_torch()  # before anything else does: how its threads wait is settled then
        from florence2.datasets.splits import check_share, split
        from florence2.training.fine_tuner import ADAPTER, FineTuner, refuse_a_second_run
        from florence2.training.loop import STATE
        from florence2.training.lora import keep_adapters
        from florence2.training.options import FineTuneOptions
        from florence2.training.preparation import with_room
        from florence2.training.run_log import PLOT
        from florence2.weights import read_checkpoint, resolve, resolve_adapter
        from florence2.weights.files import BASE_FOLDER
    options = FineTuneOptions(
        method=_one_of("method", method, ("lora", "full")),
        freeze_vision=freeze_vision,
        rank=rank,
        alpha=alpha,
        epochs=epochs,
        batch_size=batch_size,
        accumulate=accumulate,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        gradient_checkpointing=gradient_checkpointing,
        patience=patience or None,
        seed=seed,
    )
    is_mixed = _is_mixed(precision, device)
    if not resume:
        refuse_a_second_run(output)
    check_named([*data, *(rehearse or ())], [] if validation is None else [validation], images)
    check_share(validation_share)
    adapters = [resolve_adapter(one) for one in adapter or ()]
    checkpoint = read_checkpoint(resolve(model))
    reading = {"images": images, "prompt": prompt, "own_tags": allow_unknown_tag, "limit": limit, "for_training": True}
    new = [read(name, **reading) for name in data]
    kept = [read(name, **reading, answered=False) for name in rehearse or ()]
    apart = [read(name, **{**reading, "for_training": False}) for name in _held_out(data, validation)]
    check_sound([*new, *kept, *apart], skip_bad)
    records = [record for found in new for record in found.records]
    for found in kept:
        records += [replace(record, is_rehearsed=True) for record in _answered(found, skip_bad, model, adapters, device)]
    if apart:
        learnt, held_out = records, [record for found in apart for record in found.records]
        _check_apart(learnt, held_out)
    else:
        learnt, held_out = split(records, validation_share, seed)
    network, tokenizer = _loaded(checkpoint, adapters, device)
    learnt = sound(with_room(learnt, checkpoint, tokenizer, ", ".join([*data, *(rehearse or ())])), skip_bad)
    if held_out:
        held_out = sound(with_room(held_out, checkpoint, tokenizer, validation or "what is held out"), skip_bad)
    below = _base(model)
    base = {"base": BASE_FOLDER, "revision": None} if adapters else below
    tuner = FineTuner(
        checkpoint, network, tokenizer, options, output, **base, is_mixed=is_mixed, merge=merge, resume=resume, tensorboard=tensorboard
    )
    if method == "lora":
        keep_adapters(output / ADAPTER, adapters, **below)
    notify(_summary(model, options, learnt, held_out, tuner.num_trainable, is_mixed))
    try:
        with _stopped_between_steps() as is_to_stop, show_progress("steps") as progress:
            outcome = tuner.run(learnt, held_out, on_step=_teller(progress, is_to_stop))
    except KeyboardInterrupt:
        saved = (output / STATE).exists()
        report("stopped; " + ("the same command with --resume goes on" if saved else "no state was saved yet"))
        raise typer.Exit(130) from None
    _print_outcome(outcome, output / PLOT)


def _answered(found: DataSet, skip_bad: bool, model: str, adapters: Sequence[Path], device: str) -> list[Record]:
    """The records; those that have no answer are answered by the model as it is."""
    if all(record.answers for record in found.records):
        return found.records
    from florence2.engine.engine import load
    from florence2.evaluation.answers import answered_by_itself, check

    with load(model, device=device, adapters=adapters) as engine:
        records = sound(check(engine, found.records, found.name), skip_bad)
        with show_progress("answers", len(records)) as progress:
            return list(answered_by_itself(engine, records, progress=progress.update))


def _held_out(data: Sequence[str], validation: str | None) -> list[str]:
    """What the validation loss is measured on: what was named, else the parts for it of the folders that have one."""
    from florence2.datasets.folders import TEST, VALID, file_of, part_of

    if validation is not None:
        return [file_of(validation, (VALID, TEST))]
    found = [file for name in data if (file := part_of(name, VALID)) is not None]
    if found:
        notify(f"the validation loss is measured on {', '.join(found)}")
    return found


def _check_apart(learnt: Sequence[Record], held_out: Sequence[Record]) -> None:
    """Refuse pictures that are both learnt and held out, under whatever name."""
    names = ({os.path.realpath(str(one.picture)): str(one.picture) for one in records} for records in (held_out, learnt))
    first, second = names
    shared = [first[path] for path in first.keys() & second.keys()]
    if shared:
        raise InvalidOption(
            f"{len(shared)} images are in what is learnt and in what is held out, such as {min(shared)}; "
            "what is learnt can't tell when to stop",
            field="validation",
        )


def _loaded(checkpoint: Checkpoint, adapters: Sequence[Path], device: str) -> tuple[Florence2, Tokenizer]:
    """A checkpoint's model with adapters merged, in float32, and its tokenizer."""
    from florence2.engine.device import choose_device
    from florence2.weights import load_model
    from florence2.weights.vocabulary import read_tokenizer

    model = load_model(checkpoint, device=choose_device(device), adapters=adapters)
    return model, read_tokenizer(checkpoint, adapters, model.config.text.vocab_size)


def _base(name: str) -> dict[str, Any]:
    """How an adapter names the model that it belongs to: ``base`` and ``revision``."""
    from florence2.weights import ALIASES, resolve

    path = Path(name).expanduser()
    if path.is_dir() and (name not in ALIASES or any((path / file).is_file() for file in ("config.json", "adapter_config.json"))):
        return {"base": str(resolve(path)), "revision": None}
    stem, _, revision = name.partition("@")
    alias = ALIASES.get(stem)
    return {"base": alias.repository if alias is not None and alias.repository else stem, "revision": revision or None}


def _is_mixed(precision: str, device: str) -> bool:
    """Whether products are to be computed in bfloat16."""
    import torch

    from florence2.engine.device import choose_device
    from florence2.engine.precision import choose_precision

    numbers = choose_precision(precision, choose_device(device))
    if precision != "auto" and (numbers.is_quantized or numbers.tower == torch.float16):
        raise InvalidOption(f"precision must be auto, fp32 or bf16 in training, got {precision!r}", field="precision")
    return numbers.tower == torch.bfloat16


def _one_of(field: str, value: str, words: Sequence[str]) -> Any:
    if value not in words:
        raise InvalidOption(f"{field} must be one of {', '.join(words)}; got {value!r}", field=field)
    return value


def _summary(
    model: str, options: FineTuneOptions, learnt: Sequence[Record], held_out: Sequence[Record], num_learning: int, is_mixed: bool
) -> str:
    how = f"LoRA of rank {options.rank} on {' and '.join(options.targets)}" if options.method == "lora" else "all weights"
    if options.method == "full" and options.freeze_vision:
        how = "all weights but the vision tower's"
    num_rehearsed = sum(record.is_rehearsed for record in learnt)
    rehearsed = f" ({num_rehearsed} of them rehearsed)" if num_rehearsed else ""
    return (
        f"{model}: {how}, {num_learning:,} trainable parameters, {len(learnt)} records{rehearsed}, {len(held_out)} held out; "
        f"products in {'bf16' if is_mixed else 'fp32'}"
    )


def _teller(progress: Progress, is_to_stop: Callable[[], bool]) -> Callable[[Step], None]:
    """What is done after each step: tell of it, and stop where that is wanted, with all that was learnt so far saved."""

    def tell(step: Step) -> None:
        validation = "" if step.validation is None else f"  validation {step.validation:.4f}"
        progress.update(step.number, step.total, f"epoch {step.epoch}  loss {step.loss:.4f}{validation}")
        if is_to_stop():
            raise KeyboardInterrupt

    return tell


@contextmanager
def _stopped_between_steps() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C, or the signal by which systems end programs, wait for the step under way; the second one waits for nothing."""
    wanted_at: float | None = None

    def note(number: int, _: object) -> None:
        nonlocal wanted_at
        if wanted_at is None:
            wanted_at = time.monotonic()
            report("stopping after this step; once more stops at once and loses what was learnt since the last state")
        elif time.monotonic() - wanted_at > 1:  # what comes sooner is the same one, passed on by a program around this one
            restore()
            signal.raise_signal(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    try:
        yield lambda: wanted_at is not None
    finally:
        restore()


def _print_outcome(outcome: Outcome, plot: Path) -> None:
    """What came out."""
    early = ", stopped early" if outcome.stopped_early else ""
    best = "" if outcome.best is None else f", best validation loss {outcome.best:.4f} after epoch {outcome.best_epoch}"
    print(f"{outcome.steps} steps in {outcome.seconds:.0f} s{early}{best}")
    for path in (*outcome.folders, plot):
        print_path(path)
