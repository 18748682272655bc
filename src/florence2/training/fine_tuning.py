"""``fine_tune``: names of data sets and of a model in, an adapter or a checkpoint out.

The Python API of ``florence2 train``: reads and checks data, loads the model and runs the training. Prints nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from florence2.datasets.record import Record
from florence2.engine.device import choose_device
from florence2.engine.precision import choose_precision
from florence2.errors import InvalidOption
from florence2.outputs import refuse_url
from florence2.training.fine_tuner import ADAPTER, FineTuner, refuse_a_second_run
from florence2.training.lora import keep_adapters
from florence2.training.options import FineTuneData, FineTuneOptions, Outcome, Step
from florence2.training.preparation import Reports, Start, check_data, read_records, with_room
from florence2.training.run_lock import refuse_beside_a_run
from florence2.weights import ALIASES, load_model, read_checkpoint, resolve, resolve_adapter
from florence2.weights.files import BASE_FOLDER
from florence2.weights.source import adapter_names
from florence2.weights.vocabulary import read_tokenizer


@dataclass(frozen=True)
class PreparedRun:
    """A run before its first step.

    Attributes:
        tuner: trains the model.
        records: the records to train on.
        held_out: the records that the validation loss is measured on.
        summary: a line about the model, the records and the arithmetic.
    """

    tuner: FineTuner
    records: list[Record]
    held_out: list[Record]
    summary: str

    def run(self, on_step: Callable[[Step], None] | None = None) -> Outcome:
        """Train; see ``FineTuner.run``."""
        return self.tuner.run(self.records, self.held_out, on_step=on_step)


def fine_tune(
    data: str | Path | FineTuneData,
    *,
    model: str | Path,
    output: str | Path,
    options: FineTuneOptions | None = None,
    adapters: Sequence[str | Path] = (),
    device: str = "auto",
    precision: str = "auto",
    merge: bool = False,
    resume: bool = False,
    tensorboard: bool = False,
    on_step: Callable[[Step], None] | None = None,
    on_message: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Fine-tune a checkpoint on your own data, as ``florence2 train`` does.

    Args:
        data: the name of a data set, or which data sets to train on, to rehearse and to validate on.
        model: the model to begin with: an alias, alias@revision, a hub id or a folder.
        output: the run's folder: its state, log, loss plot, and the adapter or checkpoint; made if need be.
        options: how to train; None is the defaults.
        adapters: adapters to merge before training, in this order; each a folder or a hub id.
        device: "auto" (cuda, else mps, else cpu) or a device's name.
        precision: "auto", "fp32" or "bf16", of matrix products; weights stay float32. "auto" is bf16 where the device has instructions
            for it.
        merge: save a whole checkpoint beside the adapter.
        resume: go on with the run in the folder.
        tensorboard: write TensorBoard's files too.
        on_step: called after every step. An exception that it raises ends the run, whose state is saved first: ``resume`` goes on.
        on_message: called with each line about the data and the run, such as what was skipped.

    Raises:
        InvalidOption: options that can't be or do not go together, or a folder that holds a run already.
        DatasetError: a data set that does not exist, or invalid records that may not be skipped.
        ModelNotFound: no such model.
    """
    sources = data if isinstance(data, FineTuneData) else FineTuneData((str(data),))
    prepared = prepare(
        sources,
        options or FineTuneOptions(),
        Start(str(model), adapter_names(adapters), device),
        Path(output),
        Reports(on_message),
        precision=precision,
        merge=merge,
        resume=resume,
        tensorboard=tensorboard,
    )
    on_message(prepared.summary)
    return prepared.run(on_step)


def prepare(
    data: FineTuneData,
    options: FineTuneOptions,
    start: Start,
    output: Path,
    reports: Reports,
    *,
    precision: str = "auto",
    merge: bool = False,
    resume: bool = False,
    tensorboard: bool = False,
) -> PreparedRun:
    """A run before its first step: its data are read, its model is loaded; arguments and errors as in ``fine_tune``."""
    device = choose_device(start.device)
    is_mixed = _is_mixed(precision, device)
    refuse_url(output, "output")
    refuse_beside_a_run(output)
    if not resume:
        refuse_a_second_run(output)
    check_data(data)
    adapters = [resolve_adapter(one) for one in start.adapters]
    checkpoint = read_checkpoint(resolve(start.name))
    records, held_out = read_records(data, Start(start.name, tuple(adapters), start.device), options.seed, reports)
    network = load_model(checkpoint, device=device, adapters=adapters)
    tokenizer = read_tokenizer(checkpoint, adapters, network.config.text.vocab_size)
    names = ", ".join([*data.train, *data.rehearse])
    records = with_room(records, checkpoint, tokenizer, names).sound(skip_bad=data.skip_bad, report=reports.message)
    if held_out:
        name = data.validation or "what is held out"
        held_out = with_room(held_out, checkpoint, tokenizer, name).sound(skip_bad=data.skip_bad, report=reports.message)
    base, revision = _base(start.name)
    tuner = FineTuner(
        checkpoint,
        network,
        tokenizer,
        options,
        output,
        base=BASE_FOLDER if adapters else base,
        revision=None if adapters else revision,
        is_mixed=is_mixed,
        merge=merge,
        resume=resume,
        tensorboard=tensorboard,
    )
    if options.method == "lora":
        try:
            keep_adapters(output / ADAPTER, adapters, base, revision)
        except BaseException:
            tuner.leave()  # who keeps the error keeps the tuner, and with it the folder
            raise
    return PreparedRun(tuner, records, held_out, _summary(start.name, tuner, records, held_out))


def _base(name: str) -> tuple[str, str | None]:
    """How an adapter names the model that it belongs to, and the revision of a base on the hub."""
    path = Path(name).expanduser()
    if path.is_dir() and (name not in ALIASES or any((path / file).is_file() for file in ("config.json", "adapter_config.json"))):
        return str(resolve(path)), None
    stem, _, revision = name.partition("@")
    alias = ALIASES.get(stem)
    return alias.repository if alias is not None and alias.repository else stem, revision or None


def _is_mixed(precision: str, device: torch.device) -> bool:
    """Whether matrix products are computed in bfloat16."""
    numbers = choose_precision(precision, device)
    if precision != "auto" and (numbers.is_quantized or numbers.tower == torch.float16):
        raise InvalidOption(f"precision must be auto, fp32 or bf16 in training, got {precision!r}", field="precision")
    return numbers.tower == torch.bfloat16


def _summary(model: str, tuner: FineTuner, records: Sequence[Record], held_out: Sequence[Record]) -> str:
    options = tuner.options
    how = f"LoRA of rank {options.rank} on {' and '.join(options.targets)}" if options.method == "lora" else "all weights"
    if options.method == "full" and options.freeze_vision:
        how = "all weights but the vision tower's"
    num_rehearsed = sum(record.is_rehearsed for record in records)
    rehearsed = f" ({num_rehearsed} of them rehearsed)" if num_rehearsed else ""
    return (
        f"{model}: {how}, {tuner.num_trainable:,} trainable parameters, {len(records)} records{rehearsed}, {len(held_out)} held out; "
        f"products in {'bf16' if tuner.is_mixed else 'fp32'}"
    )
