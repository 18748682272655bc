"""A fine-tuning run: a checkpoint and records in, an adapter or a checkpoint out.

LoRA or all weights, with the vision tower or without it. The loss of a step is the mean over the answers' tokens, of however many
batches it takes. Each epoch ends with the loss on held-out records; the best model so far is saved at once, so that a run that is stopped
has lost nothing. A run's folder holds its state and log beside it. Knows nothing of files of records.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from florence2.datasets.record import Record
from florence2.datasets.splits import batches_of, fingerprint, in_order
from florence2.errors import DatasetError, InvalidOption
from florence2.model import Florence2
from florence2.outputs import check_folder, is_empty
from florence2.tasks.tokenizer import Tokenizer
from florence2.training.gradient_checkpointing import checkpoint_layers
from florence2.training.loop import STATE, Progress, StepInput, TrainingLoop, parameter_groups, warm_up_and_decay
from florence2.training.lora import add_lora, save_adapter, without_lora
from florence2.training.losses import RecordLosses
from florence2.training.options import FineTuneOptions, Outcome, Step
from florence2.training.run_lock import only_run
from florence2.training.run_log import LOG, PLOT, RunLog
from florence2.training.saving import save_checkpoint
from florence2.weights.checkpoint import Checkpoint
from florence2.weights.load import load_model

ADAPTER, CHECKPOINT = "adapter", "checkpoint"
SAVE_EVERY_S = 300.0
# Options that a resumed run may change, as the state names them.
_MAY_CHANGE = ("epochs", "patience", "checkpoint_activations")


@dataclass
class _FineTuneProgress(Progress):
    """How far a run has come; field names are those of the state on disk.

    Attributes:
        epoch: number of epochs that are over.
        batch: number of batches of the current epoch that are over.
        best: the lowest validation loss so far.
        best_epoch: the epoch after which it was measured.
        learnt: fingerprint of the records that are trained on.
        held_out: fingerprint of the records that are held out.
    """

    epoch: int = 0
    batch: int = 0
    best: float | None = None
    best_epoch: int = 0
    learnt: str = ""
    held_out: str = ""


class FineTuner:
    """One run in one folder.

    Args:
        checkpoint: where it begins.
        model: the checkpoint's, in float32, on the device that trains it; changed in place.
        tokenizer: the checkpoint's.
        options: how to train.
        folder: the run's; made if need be.
        base: how an adapter names its base: an alias's repository, a hub id, a folder.
        revision: of a base on the hub.
        is_mixed: matrix products in bfloat16; weights, norms and losses stay float32.
        merge: save a whole checkpoint beside an adapter.
        resume: go on from the state in the folder.
        tensorboard: write TensorBoard's files.

    Raises:
        InvalidOption: there is a state in the folder and ``resume`` is False, or the state is one of other options.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        model: Florence2,
        tokenizer: Tokenizer,
        options: FineTuneOptions,
        folder: Path,
        *,
        base: str,
        revision: str | None = None,
        is_mixed: bool = False,
        merge: bool = False,
        resume: bool = False,
        tensorboard: bool = False,
    ) -> None:
        self.checkpoint, self.model, self.tokenizer = checkpoint, model, tokenizer
        self.options, self.folder, self.merge = options, folder, merge
        self.base, self.revision, self.is_mixed = base, revision, is_mixed
        _make_trainable(model, options)
        self.losses = RecordLosses(model, tokenizer, checkpoint.image, self._before_training, is_mixed=is_mixed)
        self.optimiser = torch.optim.AdamW(parameter_groups(model, options.weight_decay), options.rate)
        self.progress, self._validation = _FineTuneProgress(), None
        self.loop = TrainingLoop(
            model,
            self.optimiser,
            self.progress,
            folder,
            self._state,
            max_gradient_norm=options.max_gradient_norm,
            save_every_s=SAVE_EVERY_S,
        )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidOption(f"the folder {folder} can't be made: {error.strerror}", field="output") from error
        with ExitStack() as opening:
            opening.enter_context(only_run(folder))
            if resume:
                self._resume()
            else:
                refuse_a_second_run(folder)
            self._log = RunLog(folder, self.progress.step, tensorboard=tensorboard)
            self._alone = opening.pop_all()  # until the end of the run

    @property
    def num_trainable(self) -> int:
        """The number of trainable parameters."""
        return sum(parameter.numel() for parameter in self._trainable().values())

    def leave(self) -> None:
        """Give the folder back without a run: others may train in it."""
        self._alone.close()

    def run(self, records: Sequence[Record], held_out: Sequence[Record], *, on_step: Callable[[Step], None] | None = None) -> Outcome:
        """Train until the last epoch, or until patience ends.

        Args:
            records: the records to train on.
            held_out: the records that the validation loss is measured on; may be empty.
            on_step: called after every step. An exception that it raises ends the run, whose state is saved first.

        Raises:
            DatasetError: a picture can no longer be read, and the run can be resumed; or a run goes on with other records.
        """
        with self._alone:
            return self._run(records, held_out, on_step)

    def _run(self, records: Sequence[Record], held_out: Sequence[Record], on_step: Callable[[Step], None] | None) -> Outcome:
        progress = self.progress
        given = (fingerprint(records), fingerprint(held_out))
        if progress.learnt and (progress.learnt, progress.held_out) != given:
            raise DatasetError("a run goes on with the records that it began with, in their order, and these are others")
        progress.learnt, progress.held_out = given
        num_steps = -(-len(self._batches(records)) // self.options.accumulate) * self.options.epochs
        self.loop.run(self._steps(records, held_out, num_steps, on_step))
        self._log.close()
        if self.merge and not (self.folder / CHECKPOINT).exists():  # wanted since the best epoch only
            best = load_model(self.checkpoint, adapters=[self.folder / ADAPTER])
            save_checkpoint(best, self.checkpoint, self.tokenizer, self.folder / CHECKPOINT)
        stopped_early = self._is_out_of_patience and progress.epoch < self.options.epochs
        return Outcome(self._folders(), progress.step, progress.best, progress.best_epoch, stopped_early, progress.seconds)

    def step(self, batches: Sequence[Sequence[Record]], learning_rate: float) -> float:
        """One step of the optimiser on some batches together; the loss a token."""
        return self.loop.take(self._step_input(batches, learning_rate))

    @torch.no_grad()
    def validate(self, records: Sequence[Record]) -> float:
        """The loss a token on held-out records."""
        self.model.eval()
        total, num_tokens = 0.0, 0
        for chosen in in_order(records, self.options.batch_size):
            batch = self.losses.collate(chosen)
            total += self.losses.total(batch).item()
            num_tokens += batch.num_tokens
        return total / num_tokens

    def _steps(
        self, records: Sequence[Record], held_out: Sequence[Record], num_steps: int, on_step: Callable[[Step], None] | None
    ) -> Iterator[StepInput]:
        """The steps that are to come; each is reported when it was taken, and the last one of an epoch is followed by its end."""
        progress, options = self.progress, self.options
        while progress.epoch < options.epochs and not self._is_out_of_patience:
            batches = self._batches(records)
            while progress.batch < len(batches):
                chosen = batches[progress.batch : progress.batch + options.accumulate]
                step = self._step_input(chosen, _rate(progress.step, num_steps, options))
                yield step
                progress.batch += len(chosen)
                loss = self.loop.loss
                self._log.report(progress.step, epoch=progress.epoch + 1, loss=loss, learning_rate=step.learning_rate)
                if on_step is not None:
                    self._call(on_step, Step(progress.step, num_steps, progress.epoch + 1, loss, self._validation))
            self._end_epoch(held_out)

    def _call(self, on_step: Callable[[Step], None], step: Step) -> None:
        """Report a step to the caller, and save the state where the caller ends the run by an exception."""
        try:
            on_step(step)
        except BaseException:
            self.loop.save_state()
            raise

    def _batches(self, records: Sequence[Record]) -> list[list[Record]]:
        """The batches of the current epoch."""
        return batches_of(records, self.options.batch_size, self.options.seed, self.progress.epoch)

    def _step_input(self, batches: Sequence[Sequence[Record]], learning_rate: float) -> StepInput:
        self.model.train()
        collated = [self.losses.collate(batch) for batch in batches]
        return StepInput(map(self.losses.total, collated), learning_rate, sum(batch.num_tokens for batch in collated))

    def _end_epoch(self, held_out: Sequence[Record]) -> None:
        """Measure the validation loss, and save the best model so far and the state."""
        progress = self.progress
        progress.epoch, progress.batch = progress.epoch + 1, 0
        self._validation = loss = self.validate(held_out) if held_out else None
        if loss is not None:
            self._log.report(progress.step, epoch=progress.epoch, validation=loss)
        if loss is None or progress.best is None or loss < progress.best:
            progress.best, progress.best_epoch = loss, progress.epoch
            self._save_model()
        self.loop.save_state()
        self._log.plot()

    @property
    def _is_out_of_patience(self) -> bool:
        progress, patience = self.progress, self.options.patience
        return progress.best is not None and patience is not None and progress.epoch - progress.best_epoch >= patience

    def _state(self) -> dict[str, Any]:
        """What a resumption needs besides the optimiser; the names are those of every run's state."""
        return {
            "learning": {name: parameter.detach() for name, parameter in self._trainable().items()},
            "at": asdict(self.progress),
            "options": self._stored_options(),
            "base": self.base,
        }

    def _stored_options(self) -> dict[str, Any]:
        stored = asdict(self.options)
        stored["checkpoint_activations"] = stored.pop("gradient_checkpointing")
        return {**stored, "is_mixed": self.is_mixed}

    def _resume(self) -> None:
        path = self.folder / STATE
        if not path.exists():
            raise InvalidOption(f"there is nothing to go on with: {path} is not there; leave resume out", field="resume")
        try:
            state = torch.load(path, map_location=self.model.device, weights_only=True)
            was_base, was_options = state["base"], state["options"]
        except Exception as error:  # whatever the loader met in a file that is none of ours, or is torn
            raise InvalidOption(
                f"{path} is not the state of such a run ({type(error).__name__}); give another folder", field="output"
            ) from error
        if was_base != self.base:
            raise InvalidOption(f"a run goes on with the model that it began with: {was_base}, got {self.base}", field="model")
        options = self._stored_options()
        changed = [name for name, value in options.items() if name not in _MAY_CHANGE and was_options[name] != value]
        if changed:
            was = ", ".join(f"{name} was {was_options[name]}" for name in changed)
            raise InvalidOption(f"a run goes on with the options that it began with: {was}", field=changed[0])
        with torch.no_grad():
            for name, parameter in self._trainable().items():
                parameter.copy_(state["learning"][name])
        self.loop.restore(state, state["at"])

    def _before_training(self) -> AbstractContextManager[Florence2]:
        return without_lora(self.model) if self.options.method == "lora" else nullcontext(self._original)

    @cached_property
    def _original(self) -> Florence2:
        """The checkpoint's model a second time, beside the one whose weights are all trained."""
        return load_model(self.checkpoint, device=self.model.device).requires_grad_(False)

    def _trainable(self) -> dict[str, nn.Parameter]:
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    def _save_model(self) -> None:
        options = self.options
        if options.method == "lora":
            settings = {"targets": options.targets, "rank": options.rank, "alpha": options.alpha}
            save_adapter(self.model, self.folder / ADAPTER, base=self.base, revision=self.revision, **settings)
        if self.merge or options.method == "full":
            save_checkpoint(self.model, self.checkpoint, self.tokenizer, self.folder / CHECKPOINT)

    def _folders(self) -> tuple[Path, ...]:
        """The folders that the run saves."""
        is_lora = self.options.method == "lora"
        adapter, checkpoint = self.folder / ADAPTER, self.folder / CHECKPOINT
        return (adapter, checkpoint) if is_lora and self.merge else (adapter,) if is_lora else (checkpoint,)


def refuse_a_second_run(folder: Path) -> None:
    """Refuse a folder that is taken, or where nothing can be written.

    Raises:
        InvalidOption: it holds the state of a run, or files that a run would write over.
    """
    if os.path.exists(folder / STATE):
        raise InvalidOption(f"{folder} holds a run already: go on with resume=True, or give another folder", field="output")
    taken = [name for name in (ADAPTER, CHECKPOINT, LOG, PLOT) if os.path.exists(folder / name) and not is_empty(folder / name)]
    if taken:
        raise InvalidOption(
            f"{folder} holds {', '.join(taken)} already, which is not written over: give another folder, or remove it first", field="output"
        )
    check_folder(folder, "output")


def _make_trainable(model: Florence2, options: FineTuneOptions) -> None:
    """Set which parameters of a model are trainable, and how their gradients are computed."""
    if options.method == "lora":
        add_lora(model, targets=options.targets, rank=options.rank, alpha=options.alpha, seed=options.seed)
    elif options.freeze_vision:
        model.vision_tower.requires_grad_(False)
    if options.gradient_checkpointing:
        checkpoint_layers(model)


def _rate(step: int, num_steps: int, options: FineTuneOptions) -> float:
    """The learning rate of a step: up over the warm-up, then down to zero at the end."""
    warmup = max(1, round(options.warmup * num_steps))
    return options.rate * warm_up_and_decay((step + 1) / warmup, (num_steps - step) / max(1, num_steps - warmup + 1))
