"""Training on batches of scenes: batches in, a trained model, its moving average and a log of the curve out.

The learning rate rises, stays and falls over the last part, as a function of the pictures seen, so that a run can be prolonged before
the fall begins. Knows nothing of where the batches come from.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from florence2.model import Florence2
from florence2.training.autocast import autocast
from florence2.training.collation import IGNORED, count_tokens
from florence2.training.demo.batches import Batch
from florence2.training.loop import STATE, Progress, StepInput, TrainingLoop, parameter_groups, warm_up_and_decay
from florence2.training.losses import answer_losses, group_logits
from florence2.training.run_log import RunLog


@dataclass(frozen=True)
class TrainingOptions:
    """How to train.

    Attributes:
        num_images: number of pictures to see in all.
        learning_rate: its value on the plateau.
        warmup: share of ``num_images`` over which the rate rises.
        decay: share of ``num_images`` at the end over which it falls to zero.
        weight_decay: of matrices; norms, biases and embeddings have none.
        max_gradient_norm: gradients are scaled down to it.
        average_decay: of the moving average of the weights, which is what is kept.
        location_spread: standard deviation, in bins, of the target around a location token at the start; it shrinks to a
            sixth by the end. Neighbouring bins are nearly as right, and with such targets a model learns locations sooner.
        first_location_id: id of ``<loc_0>``.
        auxiliary_weight: of the loss on the tower's maps at the start; it falls to zero by the end.
        is_mixed: compute matrix products in bfloat16; weights, norms and losses stay float32. Twice as fast where the
            processor has instructions for it, many times slower where it has not.
        mean: of the pixel values, per channel.
        std: of the pixel values, per channel.
        save_every_s: seconds between two saved states.
        log_every: steps between two lines of the log.
    """

    num_images: int
    first_location_id: int
    learning_rate: float = 1e-3
    warmup: float = 0.03
    decay: float = 0.3
    weight_decay: float = 0.05
    max_gradient_norm: float = 1.0
    average_decay: float = 0.999
    location_spread: float = 6.0
    auxiliary_weight: float = 6.0
    is_mixed: bool = False
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    save_every_s: float = 180.0
    log_every: int = 25


@dataclass
class _DemoProgress(Progress):
    """How far a run has come.

    Attributes:
        images_seen: number of pictures so far.
    """

    images_seen: int = 0


class Trainer:
    """One run in one folder: ``state.pt`` to go on from, ``log.jsonl`` with the curve.

    Args:
        model: changed in place.
        options: how to train.
        folder: made if need be; a state that is there is resumed.
        device: the device that trains.
        auxiliary_loss: a second loss on the tower's maps, called with them and the batch's grids. Its weight falls to 0 over the run.
    """

    def __init__(
        self, model: Florence2, options: TrainingOptions, folder: Path, device: str = "cpu", auxiliary_loss: nn.Module | None = None
    ) -> None:
        self.model = model.to(device)
        self.auxiliary_loss = (auxiliary_loss or nn.Identity()).to(device)
        self.options, self.device = options, device
        trained = nn.ModuleList([model, self.auxiliary_loss])
        optimiser = torch.optim.AdamW(parameter_groups(trained, options.weight_decay), options.learning_rate, betas=(0.9, 0.98), fused=True)
        self.average = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self.progress = _DemoProgress()
        self.loop = TrainingLoop(
            model,
            optimiser,
            self.progress,
            folder,
            self._state,
            max_gradient_norm=options.max_gradient_norm,
            save_every_s=options.save_every_s,
        )
        self._mean = torch.tensor(options.mean, device=device).view(1, 3, 1, 1) * 255
        self._std = torch.tensor(options.std, device=device).view(1, 3, 1, 1) * 255
        self._sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / STATE).exists():
            self._resume(folder / STATE)
        self._log = RunLog(folder, self.progress.step)

    def run(self, batches: Iterator[Batch]) -> None:
        """Train until all pictures were seen, or until the batches end. ``batches`` begins with number ``progress.step``."""
        self.model.train()
        self._sums.clear()
        self.loop.run(self._steps(batches))
        self.loop.save_state()

    def normalised(self, pixels: Tensor) -> Tensor:
        """The model's input from uint8 ``[images, 3, height, width]``."""
        return (pixels.to(self.device, torch.float32) - self._mean) / self._std

    def _state(self) -> dict[str, Any]:
        """What a resumption needs besides the optimiser; the names are those of every run's state."""
        return {
            "model": self.model.state_dict(),
            "supervision": self.auxiliary_loss.state_dict(),
            "average": self.average,
            "counters": asdict(self.progress),
        }

    def _resume(self, path: Path) -> None:
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.auxiliary_loss.load_state_dict(state["supervision"])
        self.average = state["average"]
        self.loop.restore(state, state["counters"])

    def _steps(self, batches: Iterator[Batch]) -> Iterator[StepInput]:
        """The steps that are to come; what follows a step is done when the next one is drawn."""
        progress, options = self.progress, self.options
        while progress.images_seen < options.num_images:
            batch = next(batches, None)
            if batch is None:
                return
            share = progress.images_seen / options.num_images
            yield StepInput(self._losses(batch, share), options.learning_rate * _rate(share, options))
            progress.images_seen += len(batch.pixels)
            self._update_average()
            if progress.step % options.log_every == 0:
                self._report()
                self._sums.clear()

    def _losses(self, batch: Batch, share: float) -> Iterator[Tensor]:
        """The loss of the answers and the auxiliary loss, as one; ``share`` of the run is over."""
        options, pixels = self.options, self.normalised(batch.pixels)
        with autocast(self.device, is_mixed=options.is_mixed):
            maps = list(self.model.vision_tower.stages(pixels))
        total = pixels.new_zeros(())
        if not isinstance(self.auxiliary_loss, nn.Identity):
            loss = self.auxiliary_loss([grid_map.float() for grid_map in maps], batch.grids.to(self.device))
            total = total + options.auxiliary_weight * (1 - share) * loss
            self._add("grids", loss.item(), 1)
        with autocast(self.device, is_mixed=options.is_mixed):
            features = self.model.multi_modal_projector(maps[-1])
        yield total + self._answer_loss(features, batch, options.location_spread * (1 - share * 5 / 6))

    def _answer_loss(self, features: Tensor, batch: Batch, spread: float) -> Tensor:
        """Mean loss over all tokens of all answers."""
        num_tokens = count_tokens(batch.groups)
        total = features.new_zeros(())
        for group in batch.groups:
            logits = group_logits(self.model, features, group, is_mixed=self.options.is_mixed)
            losses = answer_losses(logits, group.labels, self.options.first_location_id, spread)
            total = total + losses.sum() / num_tokens
            counts = (group.labels != IGNORED).sum(dim=1).tolist()
            for tag, loss, count in zip(group.tags, losses.detach().sum(dim=1).tolist(), counts, strict=True):
                self._add(tag, loss, count)
        return total

    def _add(self, name: str, loss: float, count: int) -> None:
        """Add to the sums of which the next line of the log has the means."""
        self._sums[name][0] += loss
        self._sums[name][1] += count

    @torch.no_grad()
    def _update_average(self) -> None:
        # Young averages follow quickly: the first steps are not worth remembering.
        decay = min(self.options.average_decay, (1 + self.progress.step) / (10 + self.progress.step))
        for name, value in self.model.state_dict().items():
            self.average[name].lerp_(value, 1 - decay)

    def _report(self) -> None:
        """Write and print a line of the log: mean losses since the last one."""
        at = self.progress
        losses = {tag: round(total / count, 4) for tag, (total, count) in sorted(self._sums.items())}
        total, count = (sum(values) for values in zip(*self._sums.values(), strict=True))
        loss = round(total / count, 4)
        self._log.report(at.step, images=at.images_seen, seconds=round(at.seconds, 1), loss=loss, losses=losses)
        print(f"step {at.step}  images {at.images_seen}  {at.images_seen / at.seconds:.1f} images/s  loss {loss}", flush=True)


def _rate(share: float, options: TrainingOptions) -> float:
    """The learning rate as a share of its plateau, where ``share`` of the run is over."""
    return warm_up_and_decay(share / options.warmup, (1 - share) / options.decay, floor=0.01)
