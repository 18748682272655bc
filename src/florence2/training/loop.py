"""The training loop: steps of an optimiser, one after the other, and a state on disk from which a run goes on.

In: the losses of each step and its learning rate. Out: trained parameters, and ``state.pt`` every few minutes. Knows neither data nor
models: fine-tuning and the demo's recipe say what a step's losses are, what else belongs to the state, and what is logged.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from florence2.errors import InvalidOption

STATE = "state.pt"


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        step: number of steps so far.
        seconds: how long the run took, the time before a resumption included.
    """

    step: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class StepInput:
    """What one step of the optimiser takes.

    Attributes:
        losses: the parts of the step's loss; each is computed when the gradients of the one before it are.
        learning_rate: of this step.
        num_tokens: the sum of the parts is divided by it.
    """

    losses: Iterable[Tensor]
    learning_rate: float
    num_tokens: int = 1


AnyProgress = TypeVar("AnyProgress", bound=Progress)


class TrainingLoop(Generic[AnyProgress]):
    """The steps of one run in one folder.

    Args:
        model: its parameters are trained; gradients of their own are clipped.
        optimiser: of these parameters, and of others that are trained beside them.
        progress: counts steps and seconds; a run may have more to count.
        folder: of the run.
        state: what a resumption needs besides the optimiser.
        max_gradient_norm: gradients are scaled down to it.
        save_every_s: seconds between two saved states.

    Attributes:
        loss: of the last step.
    """

    def __init__(
        self,
        model: nn.Module,
        optimiser: Optimizer,
        progress: AnyProgress,
        folder: Path,
        state: Callable[[], Mapping[str, Any]],
        *,
        max_gradient_norm: float,
        save_every_s: float,
    ) -> None:
        self.model, self.optimiser, self.progress = model, optimiser, progress
        self._file, self._state = folder / STATE, state
        self._max_gradient_norm, self._save_every_s = max_gradient_norm, save_every_s
        self.loss = math.nan
        self._clock: Callable[[], float] = lambda: progress.seconds

    def run(self, steps: Iterable[StepInput]) -> None:
        """Take the steps, each before the next one is drawn."""
        started = time.monotonic() - self.progress.seconds
        self._clock = lambda: time.monotonic() - started
        saved = time.monotonic()
        for step in steps:
            if time.monotonic() - saved > self._save_every_s:
                self.save_state()
                saved = time.monotonic()
            self.loss = self.take(step)
            self.progress.step += 1
            self.progress.seconds = self._clock()
        self.progress.seconds = self._clock()

    def take(self, step: StepInput) -> float:
        """One step of the optimiser; its loss.

        Raises:
            InvalidOption: the loss is no longer a finite number.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = step.learning_rate
        total = 0.0
        for loss in step.losses:
            (loss / step.num_tokens).backward()
            total += loss.item()
        if not math.isfinite(total):
            raise InvalidOption(
                f"the loss is no longer a number after {self.progress.step} steps; "
                f"begin again with a learning rate under {step.learning_rate:g}",
                field="learning_rate",
            )
        nn.utils.clip_grad_norm_(self.model.parameters(), self._max_gradient_norm)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return total / step.num_tokens

    def save_state(self) -> None:
        """Write the state beside the old one, then replace that one: a kill at any moment leaves a whole file."""
        self.progress.seconds = self._clock()
        partial = self._file.with_name(f"{STATE}.partial")
        torch.save({**self._state(), "optimiser": self.optimiser.state_dict()}, partial)
        partial.replace(self._file)

    def restore(self, state: Mapping[str, Any], progress: Mapping[str, Any]) -> None:
        """Go on from a state: its optimiser, and how far its run had come."""
        self.optimiser.load_state_dict(state["optimiser"])
        for name in asdict(self.progress):
            setattr(self.progress, name, progress[name])


def warm_up_and_decay(warmed_up: float, left: float, floor: float = 0.0) -> float:
    """The learning rate as a share of its plateau, over a run of three parts.

    Args:
        warmed_up: the share of the warm-up that is over; more than 1 after it.
        left: the share of the decay that is to come; more than 1 before it.
        floor: the lowest share.
    """
    return max(floor, min(1.0, warmed_up, left))


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The trainable parameters of a model, for an optimiser: matrices decay; norms, biases and embeddings do not."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [p for p in trainable if p.ndim > 1 and id(p) not in embeddings]
    others = [p for p in trainable if p.ndim < 2 or id(p) in embeddings]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
