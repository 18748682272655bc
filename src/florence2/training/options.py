"""What a fine-tuning run is given and what it reports: plain values. Knows nothing of PyTorch."""

from __future__ import annotations

import math
import numbers
import operator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from florence2.datasets.reader import check_limit
from florence2.errors import InvalidOption

METHODS = ("lora", "full")
_LEAST = {"rank": 1, "epochs": 1, "batch_size": 1, "accumulate": 1, "seed": 0, "patience": 0}


@dataclass(frozen=True)
class FineTuneData:
    """What a fine-tuning run reads: data sets by name, as ``florence2 train`` takes them.

    Attributes:
        train: data sets that the model is trained on.
        rehearse: data sets that the model is not to forget: it keeps the probabilities that it gives their answers (self-distillation).
        validation: the data set that the validation loss is measured on; None is the ``valid`` of folders that have one, or else a share
            of the images.
        validation_share: the share of the images that is held out for it where there is no such data set, from 0 to under 1.
        images: the folder that the images' names are relative to; None is each data set's own.
        prompt: the task for images of data sets with boxes: "od", or "open-vocabulary-detection" for all its classes by name.
        allow_unknown_tag: accept prompts that begin with a tag of your own.
        skip_bad: go on without records that can't be used, which are reported.
        limit: at most so many images of each data set; None is all.
    """

    train: tuple[str, ...]
    rehearse: tuple[str, ...] = ()
    validation: str | None = None
    validation_share: float = 0.1
    images: Path | None = None
    prompt: str = "<OD>"
    allow_unknown_tag: bool = False
    skip_bad: bool = False
    limit: int | None = None

    def __post_init__(self) -> None:
        """Make names of paths, and a tuple of one name or of a list."""
        for name in ("train", "rehearse"):
            given = getattr(self, name)
            object.__setattr__(self, name, (str(given),) if isinstance(given, (str, Path)) else tuple(map(str, given)))
        if not self.train:
            raise InvalidOption("train names no data set: give at least one", field="data")
        object.__setattr__(self, "validation", None if self.validation is None else str(self.validation))
        object.__setattr__(self, "images", None if self.images is None else Path(self.images))
        check_limit(self.limit)


@dataclass(frozen=True)
class FineTuneOptions:
    """How to fine-tune.

    Attributes:
        method: "lora" trains low-rank updates of the linear layers, "full" all weights.
        freeze_vision: leave the vision tower as it is; its features are then computed without memory for gradients.
        rank: of the low-rank updates.
        alpha: the updates are scaled by ``alpha / rank``.
        epochs: how often each record is seen.
        batch_size: number of records whose gradients are computed together.
        accumulate: number of such batches in one step of the optimiser.
        learning_rate: its value after the warm-up; None is 5e-4 with LoRA and 1e-5 without.
        warmup: share of all steps over which the rate rises, from 0 to under 1; it falls to zero over the rest.
        weight_decay: of matrices, from 0 to under 1.
        max_gradient_norm: gradients are scaled down to it.
        gradient_checkpointing: compute layers a second time for their gradients instead of keeping their activations: a third more
            time for a fraction of the memory.
        patience: stop after so many epochs without a better validation loss; None or 0 never does.
        seed: of the order of records, of the updates and of the choice of records that are held out.
    """

    method: Literal["lora", "full"] = "lora"
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
    gradient_checkpointing: bool = False
    patience: int | None = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InvalidOption(f"method must be one of {', '.join(METHODS)}; got {self.method!r}", field="method")
        for name, least in _LEAST.items():
            if (value := getattr(self, name)) is not None or name != "patience":
                object.__setattr__(self, name, _whole_number(name, value, least))
        object.__setattr__(self, "patience", self.patience or None)
        for name in ("alpha", "max_gradient_norm", "weight_decay", "warmup", "learning_rate"):
            value = getattr(self, name)
            if not (isinstance(value, numbers.Real) or (name == "learning_rate" and value is None)) or value == math.inf:
                raise InvalidOption(f"{name} must be a number, got {value!r}", field=name)
        for name in ("alpha", "max_gradient_norm"):
            if not getattr(self, name) > 0:
                raise InvalidOption(f"{name} must be greater than 0, got {getattr(self, name)}", field=name)
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


def _whole_number(name: str, value: Any, least: int) -> int:
    """The integer, of any library; booleans are none here."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise InvalidOption(f"{name} must be a whole number, got {value!r}", field=name)
    if number < least:
        raise InvalidOption(f"{name} must be at least {least}, got {number}", field=name)
    return number


@dataclass(frozen=True)
class Step:
    """The report of a step.

    Attributes:
        number: number of steps so far.
        total: number of steps in all.
        epoch: the current epoch, from 1.
        loss: mean loss of the step's tokens.
        validation: the last validation loss; None before the first epoch ends.
    """

    number: int
    total: int
    epoch: int
    loss: float
    validation: float | None


@dataclass(frozen=True)
class Outcome:
    """The result of a run.

    Attributes:
        folders: what was saved: the adapter, the checkpoint, or both.
        steps: number of steps taken.
        best: the lowest validation loss; None without held-out records.
        best_epoch: the epoch after which it was measured; the last one without held-out records.
        stopped_early: True where ``patience`` ended the run.
        seconds: how long the run took, the time before a resumption included.
    """

    folders: tuple[Path, ...]
    steps: int
    best: float | None
    best_epoch: int
    stopped_early: bool
    seconds: float
