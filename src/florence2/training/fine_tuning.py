"""Fine-tuning: a checkpoint and records in, an adapter or a checkpoint out.

LoRA or all weights, with the vision tower or without it. The loss, which is `objective`'s, is the mean over the answers' tokens, of
however many batches a step takes. Each epoch ends with the loss on held-out records; what was best there is what is saved, at
once, so that a run that is stopped has lost nothing. A run's folder holds its state and log beside it. Knows nothing of files of records.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from florence2.datasets.record import Record
from florence2.datasets.splits import batches_of, fingerprint, in_order
from florence2.errors import DatasetError, InvalidOption
from florence2.model import Florence2
from florence2.outputs import check_folder, is_empty
from florence2.tasks.tokenizer import Tokenizer
from florence2.training.demo.trainer import parameter_groups
from florence2.training.gradient_checkpointing import recompute_layers
from florence2.training.lora import add_lora, save_adapter, without_lora
from florence2.training.losses import Objective
from florence2.training.run_log import LOG, PLOT, RunLog
from florence2.training.saving import save_checkpoint
from florence2.weights.checkpoint import Checkpoint
from florence2.weights.load import load_model

STATE = "state.pt"
ADAPTER, CHECKPOINT = "adapter", "checkpoint"
SAVE_EVERY_S = 300.0
# What a run that goes on may be told anew.
_MAY_CHANGE = ("epochs", "patience", "checkpoint_activations")
Method = Literal["lora", "full"]


@dataclass(frozen=True)
class FineTuneOptions:
    """How to fine-tune.

    Attributes:
        method: "lora" learns low-rank updates of the linear layers, "full" all weights.
        freeze_vision: leave the vision tower as it is; its features are then computed without memory for gradients.
        rank: of the low-rank updates.
        alpha: they are scaled by ``alpha / rank``.
        epochs: how often each record is seen.
        batch_size: records whose gradients are computed together.
        accumulate: such batches in one step of the optimiser.
        learning_rate: its value after warming up; None is 5e-4 with LoRA and 1e-5 without.
        warmup: share of all steps over which the rate rises; it falls to zero over the rest.
        weight_decay: of matrices.
        max_gradient_norm: gradients are scaled down to it.
        is_mixed: matrix products in bfloat16; weights, norms and losses stay float32.
        checkpoint_activations: compute layers a second time for their gradients instead of keeping what they computed: a third more
            time for a fraction of the memory.
        patience: stop after so many epochs without a better validation loss; None never does.
        seed: of the order of records and of the updates.
    """

    method: Method = "lora"
    freeze_vision: bool = False
    rank: int = 16
    alpha: float = 32.0
    epochs: int = 10
    batch_size: int = 8
    accumulate: int = 1
    learning_rate: float | None = None
    warmup: float = 0.05
    weight_decay: float = 0.01
    max_gradient_norm: float = 1.0
    is_mixed: bool = False
    checkpoint_activations: bool = False
    patience: int | None = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rank", "epochs", "batch_size", "accumulate"):
            if getattr(self, name) < 1:
                raise InvalidOption(f"{name} must be at least 1, got {getattr(self, name)}", field=name)
        for name in ("alpha", "max_gradient_norm"):
            if not getattr(self, name) > 0:
                raise InvalidOption(f"{name} must be greater than 0, got {getattr(self, name)}", field=name)
        if self.method not in ("lora", "full"):
            raise InvalidOption(f"method must be lora or full, got {self.method!r}", field="method")
        if not 0 <= self.weight_decay < 1:
            raise InvalidOption(f"weight_decay is from 0 to under 1, got {self.weight_decay}", field="weight_decay")
        if not 0 <= self.warmup < 1:
            raise InvalidOption(f"warmup is a share of all steps from 0 to under 1, got {self.warmup}", field="warmup")
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise InvalidOption(f"learning_rate must be a number greater than 0, got {self.learning_rate}", field="learning_rate")

    @property
    def rate(self) -> float:
        """The learning rate after warming up."""
        return self.learning_rate or (5e-4 if self.method == "lora" else 1e-5)

    @property
    def targets(self) -> tuple[str, ...]:
        """The groups of layers that get low-rank updates."""
        return ("language",) if self.freeze_vision else ("language", "vision")


@dataclass(frozen=True)
class Step:
    """What a run tells about itself while it runs.

    Attributes:
        number: steps so far.
        total: steps in all.
        epoch: the epoch that is under way, from 1.
        loss: of the last step, a token.
        validation: the last loss on held-out records; None before the first.
    """

    number: int
    total: int
    epoch: int
    loss: float
    validation: float | None


@dataclass(frozen=True)
class Outcome:
    """What came out.

    Attributes:
        folders: what was saved: the adapter, the checkpoint, or both.
        steps: how many were taken.
        best: the lowest validation loss; None without held-out records.
        best_epoch: the epoch that it was measured after; the last one without held-out records.
        stopped_early: whether patience ended the run.
        seconds: how long the run took, what was before a resumption included.
    """

    folders: tuple[Path, ...]
    steps: int
    best: float | None
    best_epoch: int
    stopped_early: bool
    seconds: float


@dataclass
class _Counters:
    """Where a run stands."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best: float | None = None
    best_epoch: int = 0
    seconds: float = 0.0
    learnt: str = ""
    held_out: str = ""


class FineTuner:
    """One run in one folder.

    Args:
        checkpoint: where it begins.
        model: the checkpoint's, in float32, where it is to be trained; changed in place.
        tokenizer: the checkpoint's.
        options: how to train.
        folder: the run's; made if need be.
        base: how an adapter names its base: an alias's repository, a hub id, a folder.
        revision: of a base on the hub.
        merge: save a whole checkpoint beside an adapter.
        resume: go on from the state in the folder.
        tensorboard: write TensorBoard's files.

    Raises:
        InvalidOption: a state lies in the folder and is not to be resumed, or one of other options is.
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
        merge: bool = False,
        resume: bool = False,
        tensorboard: bool = False,
    ) -> None:
        self.checkpoint, self.model, self.tokenizer = checkpoint, model, tokenizer
        self.options, self.folder, self.merge = options, folder, merge
        self.base, self.revision = base, revision
        self.device = model.device
        if options.method == "lora":
            add_lora(model, targets=options.targets, rank=options.rank, alpha=options.alpha, seed=options.seed)
        elif options.freeze_vision:
            model.vision_tower.requires_grad_(False)
        if options.checkpoint_activations:
            recompute_layers(model)
        self.objective = Objective(model, tokenizer, checkpoint.image, self._before_training, is_mixed=options.is_mixed)
        self.optimiser = torch.optim.AdamW(parameter_groups(model, options.weight_decay), options.rate)
        self._at = _Counters()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidOption(f"the folder {folder} can't be made: {error.strerror}", field="output") from error
        if resume:
            self._resume()
        else:
            refuse_a_second_run(folder)
        self._log = RunLog(folder, self._at.step, tensorboard=tensorboard)

    @property
    def num_learning(self) -> int:
        """How many numbers learn."""
        return sum(parameter.numel() for parameter in self._learning().values())

    def run(self, records: Sequence[Record], held_out: Sequence[Record], *, tell: Callable[[Step], None] | None = None) -> Outcome:
        """Train until the last epoch, or until patience ends.

        Args:
            records: what is learnt.
            held_out: what the validation loss is measured on; none is allowed.
            tell: called after every step.

        Raises:
            DatasetError: a picture can no longer be read, and the run can be resumed; or a run goes on with other records.
        """
        options, at = self.options, self._at
        given = (fingerprint(records), fingerprint(held_out))
        if at.learnt and (at.learnt, at.held_out) != given:
            raise DatasetError("a run goes on with the records that it began with, in their order, and these are others")
        at.learnt, at.held_out = given
        steps_an_epoch = -(-len(batches_of(records, options.batch_size, options.seed, 0)) // options.accumulate)
        total = steps_an_epoch * options.epochs
        started, saved = time.monotonic() - at.seconds, time.monotonic()
        validation, stopped = None, self._is_out_of_patience
        while at.epoch < options.epochs and not stopped:
            batches = batches_of(records, options.batch_size, options.seed, at.epoch)
            while at.batch < len(batches):
                chosen = batches[at.batch : at.batch + options.accumulate]
                loss = self.step(chosen, _rate(at.step, total, options))
                at.batch, at.step, at.seconds = at.batch + len(chosen), at.step + 1, time.monotonic() - started
                self._log.tell(at.step, epoch=at.epoch + 1, loss=loss, learning_rate=self.optimiser.param_groups[0]["lr"])
                if time.monotonic() - saved > SAVE_EVERY_S:
                    self.save_state()
                    saved = time.monotonic()
                if tell is not None:
                    tell(Step(at.step, total, at.epoch + 1, loss, validation))
            at.epoch, at.batch = at.epoch + 1, 0
            validation = self._validate(held_out) if held_out else None
            stopped = self._settle(validation)
            at.seconds = time.monotonic() - started
            self.save_state()
            self._log.plot()
        self._log.close()
        if self.merge and not (self.folder / CHECKPOINT).exists():  # asked for after the best epoch
            best = load_model(self.checkpoint, adapters=[self.folder / ADAPTER])
            save_checkpoint(best, self.checkpoint, self.tokenizer, self.folder / CHECKPOINT)
        return Outcome(self._folders(), at.step, at.best, at.best_epoch, stopped and at.epoch < options.epochs, at.seconds)

    def step(self, batches: Sequence[Sequence[Record]], learning_rate: float) -> float:
        """One step of the optimiser on some batches together; the loss a token."""
        self.model.train()
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate
        num_tokens = sum(len(self.tokenizer.encode(record.answers[0])) for batch in batches for record in batch)
        total = 0.0
        for batch in batches:
            loss = self.objective.loss(self.objective.prepare(batch))
            (loss / num_tokens).backward()
            total += loss.item()
        if not math.isfinite(total):
            raise InvalidOption(
                f"the loss is no longer a number after {self._at.step} steps; begin again with a learning rate under {learning_rate:g}",
                field="learning_rate",
            )
        nn.utils.clip_grad_norm_(self._learning().values(), self.options.max_gradient_norm)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return total / num_tokens

    def save_state(self) -> None:
        """Write all that a resumption needs; a kill at any moment leaves a whole file."""
        state = {
            "learning": {name: parameter.detach() for name, parameter in self._learning().items()},
            "optimiser": self.optimiser.state_dict(),
            "at": asdict(self._at),
            "options": asdict(self.options),
            "base": self.base,
        }
        partial = self.folder / f"{STATE}.partial"
        torch.save(state, partial)
        partial.replace(self.folder / STATE)

    def _resume(self) -> None:
        path = self.folder / STATE
        if not path.exists():
            raise InvalidOption(f"there is nothing to go on with: {path} is not there; leave out --resume", field="resume")
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            was_base, was_options = state["base"], state["options"]
        except Exception as error:  # whatever the loader met in a file that is none of ours, or is torn
            raise InvalidOption(
                f"{path} is not the state of such a run ({type(error).__name__}); give another folder", field="output"
            ) from error
        if was_base != self.base:
            raise InvalidOption(f"a run goes on with the model that it began with: {was_base}, got {self.base}", field="model")
        changed = [name for name, value in asdict(self.options).items() if name not in _MAY_CHANGE and was_options[name] != value]
        if changed:
            was = ", ".join(f"{name} was {was_options[name]}" for name in changed)
            raise InvalidOption(f"a run goes on with the options that it began with: {was}", field=changed[0])
        with torch.no_grad():
            for name, parameter in self._learning().items():
                parameter.copy_(state["learning"][name])
        self.optimiser.load_state_dict(state["optimiser"])
        self._at = _Counters(**state["at"])

    def _before_training(self) -> AbstractContextManager[Florence2]:
        return without_lora(self.model) if self.options.method == "lora" else nullcontext(self._original)

    @cached_property
    def _original(self) -> Florence2:
        """The checkpoint's model a second time, beside the one whose weights all learn."""
        return load_model(self.checkpoint, device=self.device).requires_grad_(False)

    def _learning(self) -> dict[str, nn.Parameter]:
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    @torch.no_grad()
    def _validate(self, records: Sequence[Record]) -> float:
        """The loss a token on held-out records."""
        self.model.eval()
        total, num_tokens = 0.0, 0
        for batch in in_order(records, self.options.batch_size):
            questions = self.objective.prepare(batch)
            total += self.objective.loss(questions).item()
            num_tokens += questions.num_tokens
        return total / num_tokens

    def _settle(self, validation: float | None) -> bool:
        """Save what is best so far; whether patience has ended."""
        at = self._at
        if validation is not None:
            self._log.tell(at.step, epoch=at.epoch, validation=validation)
        if validation is None or at.best is None or validation < at.best:
            at.best, at.best_epoch = validation, at.epoch
            self._save_model()
        return self._is_out_of_patience

    @property
    def _is_out_of_patience(self) -> bool:
        at, patience = self._at, self.options.patience
        return at.best is not None and patience is not None and at.epoch - at.best_epoch >= patience

    def _save_model(self) -> None:
        options = self.options
        if options.method == "lora":
            settings = {"targets": options.targets, "rank": options.rank, "alpha": options.alpha}
            save_adapter(self.model, self.folder / ADAPTER, base=self.base, revision=self.revision, **settings)
        if self.merge or options.method == "full":
            save_checkpoint(self.model, self.checkpoint, self.tokenizer, self.folder / CHECKPOINT)

    def _folders(self) -> tuple[Path, ...]:
        """What a run saves."""
        is_lora = self.options.method == "lora"
        adapter, checkpoint = self.folder / ADAPTER, self.folder / CHECKPOINT
        return (adapter, checkpoint) if is_lora and self.merge else (adapter,) if is_lora else (checkpoint,)


def refuse_a_second_run(folder: Path) -> None:
    """Say that a folder is taken, or that nothing can be written there.

    Raises:
        InvalidOption: it holds the state of a run, or what one would write over.
    """
    if os.path.exists(folder / STATE):
        raise InvalidOption(f"{folder} holds a run already: go on with it by --resume, or give another folder", field="output")
    taken = [name for name in (ADAPTER, CHECKPOINT, LOG, PLOT) if os.path.exists(folder / name) and not is_empty(folder / name)]
    if taken:
        raise InvalidOption(
            f"{folder} holds {', '.join(taken)} already, which is not written over: give another folder, or remove it first", field="output"
        )
    check_folder(folder, "output")


def _rate(step: int, total: int, options: FineTuneOptions) -> float:
    """The learning rate of a step: up over the warm-up, then down to zero at the end."""
    warmup = max(1, round(options.warmup * total))
    return options.rate * min((step + 1) / warmup, (total - step) / max(1, total - warmup + 1))
