"""The training loop: batches in, a trained model, its moving average and a log of the curve out.

Runs on a CPU or a GPU, saves its whole state every few minutes and goes on from there. The learning rate rises, stays and
falls over the last part, as a function of the pictures seen, so that a run can be prolonged before the fall begins.
Knows nothing of where the batches come from.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from florence2.model import Florence2
from florence2.training.demo.batches import IGNORED, Batch, Group, count_tokens

NUM_LOCATIONS = 1000
POSITION_SCALE = 1.0
DEPTHWISE_STD = 0.15


@dataclass(frozen=True)
class TrainingOptions:
    """How to train.

    Attributes:
        num_images: pictures to see in all.
        learning_rate: its value on the plateau.
        warmup: share of ``num_images`` over which the rate rises.
        decay: share of ``num_images`` at the end over which it falls to zero.
        weight_decay: of matrices; norms, biases and embeddings have none.
        max_gradient_norm: gradients are scaled down to it.
        average_decay: of the moving average of the weights, which is what is kept.
        location_spread: standard deviation, in bins, of the target around a location token at the start; it shrinks to a
            sixth by the end. Neighbouring bins are nearly as right, and a model that is told so learns places sooner.
        first_location_id: id of ``<loc_0>``.
        supervision_weight: of the loss on the tower's maps at the start; it falls to zero by the end.
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
    supervision_weight: float = 6.0
    is_mixed: bool = False
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    save_every_s: float = 180.0
    log_every: int = 25


def initialise(model: Florence2, first_location_id: int, seed: int) -> None:
    """Fill a new model with random weights that train well.

    Matrices are Xavier-uniform, embeddings small. The embeddings of the location tokens begin as
    smooth functions of the bin, so that neighbours resemble each other from the first step, and those of the image's rows and
    columns as large as the features that they are added to: at the usual 0.02 nothing tells the model where a feature stands.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight, generator=generator)
        elif isinstance(module, nn.Conv2d):
            # Depthwise convolutions are added to what they read, a dozen times over. At 1/3 (their fan-in) each doubles the
            # stream, and what attention adds drowns in it; near zero nothing knows its neighbours' places, and shapes
            # can't be told apart.
            std = DEPTHWISE_STD if module.groups > 1 else (module.weight[0].numel()) ** -0.5
            nn.init.normal_(module.weight, std=std, generator=generator)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02, generator=generator)
        if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
            nn.init.zeros_(module.bias)
    table = model.language_model.shared.weight
    positions = model.multi_modal_projector.image_position_embed
    with torch.no_grad():
        table[first_location_id : first_location_id + NUM_LOCATIONS] = 0.03 * _smooth(NUM_LOCATIONS, table.shape[1], 30.0, generator)
        for embedding in (positions.row_embeddings, positions.column_embeddings):
            num_places, width = embedding.weight.shape
            embedding.weight.copy_(POSITION_SCALE * _smooth(num_places, width, 6.0, generator))


def _smooth(num_places: int, width: int, waves: float, generator: torch.Generator) -> Tensor:
    """``[num_places, width]``: cosines of the place with random rates and phases, values from -1 to 1."""
    places = torch.linspace(0, 1, num_places).unsqueeze(1)
    rates = torch.randn(1, width, generator=generator) * waves
    phases = torch.rand(1, width, generator=generator) * 2 * torch.pi
    return torch.cos(places * rates + phases)


class Trainer:
    """One run in one folder: ``state.pt`` to go on from, ``log.jsonl`` with the curve.

    Args:
        model: changed in place.
        options: how to train.
        folder: made if need be; a state that is there is resumed.
        device: where to train.
        supervision: a second loss on the tower's maps, called with them and the batch's grids. Its weight falls to 0 over
            the run.
    """

    def __init__(
        self, model: Florence2, options: TrainingOptions, folder: Path, device: str = "cpu", supervision: nn.Module | None = None
    ) -> None:
        self.model = model.to(device)
        self.supervision = (supervision or nn.Identity()).to(device)
        self.options = options
        self.folder = folder
        self.device = device
        trained = nn.ModuleList([model, self.supervision])
        self.optimiser = torch.optim.AdamW(
            parameter_groups(trained, options.weight_decay), options.learning_rate, betas=(0.9, 0.98), fused=True
        )
        self.average = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self.step = 0
        self.images_seen = 0
        self.seconds = 0.0
        self._mean = torch.tensor(options.mean, device=device).view(1, 3, 1, 1) * 255
        self._std = torch.tensor(options.std, device=device).view(1, 3, 1, 1) * 255
        folder.mkdir(parents=True, exist_ok=True)
        if self._state_file.exists():
            self._resume()

    @property
    def _state_file(self) -> Path:
        return self.folder / "state.pt"

    def run(self, batches: Iterator[Batch]) -> None:
        """Train until all pictures were seen. ``batches`` begins with number ``self.step``."""
        self.model.train()
        sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        started, saved = time.monotonic() - self.seconds, time.monotonic()
        while self.images_seen < self.options.num_images:
            self._train_on(next(batches), sums)
            self.seconds = time.monotonic() - started
            if self.step % self.options.log_every == 0:
                self._log(sums)
                sums.clear()
            if time.monotonic() - saved > self.options.save_every_s:
                self.save()
                saved = time.monotonic()
        self.save()

    def save(self) -> None:
        """Write the state beside the old one, then put it in its place: a kill at any moment leaves a whole file."""
        state = {
            "model": self.model.state_dict(),
            "supervision": self.supervision.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "counters": {"step": self.step, "images_seen": self.images_seen, "seconds": self.seconds},
        }
        partial = self._state_file.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self._state_file)

    def _resume(self) -> None:
        state = torch.load(self._state_file, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.supervision.load_state_dict(state["supervision"])
        self.average = state["average"]
        self.optimiser.load_state_dict(state["optimiser"])
        for name, value in state["counters"].items():
            setattr(self, name, value)

    def _train_on(self, batch: Batch, sums: dict[str, list[float]]) -> None:
        progress = self.images_seen / self.options.num_images
        for group in self.optimiser.param_groups:
            group["lr"] = self.options.learning_rate * _rate(progress, self.options)
        total = self._loss(batch, progress, sums)
        total.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.options.max_gradient_norm)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.step += 1
        self.images_seen += len(batch.pixels)
        self._update_average()

    def _loss(self, batch: Batch, progress: float, sums: dict[str, list[float]]) -> Tensor:
        """The loss of the answers, and of the tower's maps where they are supervised."""
        pixels = (batch.pixels.to(self.device, torch.float32) - self._mean) / self._std
        with arithmetic(self.device, is_mixed=self.options.is_mixed):
            maps = self.model.vision_tower.stages(pixels)
        total = pixels.new_zeros(())
        if not isinstance(self.supervision, nn.Identity):
            loss = self.supervision([grid_map.float() for grid_map in maps], batch.grids.to(self.device))
            total = total + self.options.supervision_weight * (1 - progress) * loss
            sums["grids"][0] += loss.item()
            sums["grids"][1] += 1
        with arithmetic(self.device, is_mixed=self.options.is_mixed):
            features = self.model.multi_modal_projector(maps[-1])
        return total + self._answer_loss(features, batch, self.options.location_spread * (1 - progress * 5 / 6), sums)

    def _answer_loss(self, features: Tensor, batch: Batch, spread: float, sums: dict[str, list[float]]) -> Tensor:
        """Mean loss over all tokens of all answers."""
        num_tokens = count_tokens(batch.groups)
        total = features.new_zeros(())
        for group in batch.groups:
            logits = group_logits(self.model, features, group, is_mixed=self.options.is_mixed)
            losses = answer_losses(logits, group.labels, self.options.first_location_id, spread)
            total = total + losses.sum() / num_tokens
            counts = (group.labels != IGNORED).sum(dim=1).tolist()
            for tag, loss, count in zip(group.tags, losses.detach().sum(dim=1).tolist(), counts, strict=True):
                sums[tag][0] += loss
                sums[tag][1] += count
        return total

    @torch.no_grad()
    def _update_average(self) -> None:
        # Young averages follow quickly: the first steps are not worth remembering.
        decay = min(self.options.average_decay, (1 + self.step) / (10 + self.step))
        for name, value in self.model.state_dict().items():
            self.average[name].lerp_(value, 1 - decay)

    def _log(self, sums: dict[str, list[float]]) -> None:
        losses = {tag: round(total / count, 4) for tag, (total, count) in sorted(sums.items())}
        total, count = (sum(values) for values in zip(*sums.values(), strict=True))
        line = {
            "step": self.step,
            "images": self.images_seen,
            "seconds": round(self.seconds, 1),
            "loss": round(total / count, 4),
            "losses": losses,
        }
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
        print(
            f"step {self.step}  images {self.images_seen}  {self.images_seen / self.seconds:.1f} images/s  loss {line['loss']}", flush=True
        )


@contextmanager
def arithmetic(device: str | torch.device, *, is_mixed: bool) -> Iterator[None]:
    """Matrix products in bfloat16 where ``is_mixed``, and attention by what is fastest in training on such a device."""
    kind = torch.device(device).type
    with torch.autocast(kind, torch.bfloat16, enabled=is_mixed), attention_for(kind):
        yield


def attention_for(kind: str) -> AbstractContextManager[Any]:
    """Which attention is fastest in training on devices of a kind."""
    # Fused attention in bfloat16 is slower on processors without AMX than the products it is made of; on a GPU it is not.
    return sdpa_kernel(SDPBackend.MATH) if kind == "cpu" else nullcontext()


def group_logits(model: Florence2, features: Tensor, group: Group, *, is_mixed: bool) -> Tensor:
    """What the model makes of a group's examples about pictures with these features: logits ``[examples, tokens, vocabulary]``."""
    device = features.device
    with arithmetic(device, is_mixed=is_mixed):
        asked = features[group.image_index]
        return model(asked, group.prompt_ids.to(device), group.prompt_lengths, group.decoder_ids.to(device))


def answer_losses(logits: Tensor, labels: Tensor, first_location_id: int = 0, spread: float = 0.0) -> Tensor:
    """Cross entropy of every token, ``[examples, tokens]``, zero at ignored places.

    Location tokens have a target that is spread over the bins around the true one (a normal distribution with ``spread``
    bins of standard deviation, cut at two of them); with ``spread`` 0 they are tokens like all others.
    """
    labels = labels.to(logits.device)
    log_probabilities = F.log_softmax(logits.float(), dim=-1)
    is_ignored = labels == IGNORED
    targets = labels.masked_fill(is_ignored, 0)
    losses = -log_probabilities.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    is_location = (targets >= first_location_id) & (targets < first_location_id + NUM_LOCATIONS)
    if spread > 0 and bool(is_location.any()):
        reach = max(1, round(2 * spread))
        offsets = torch.arange(-reach, reach + 1, device=labels.device)
        weights = torch.exp(-0.5 * (offsets / spread) ** 2)
        bins = (targets[is_location].unsqueeze(-1) - first_location_id + offsets).clamp(0, NUM_LOCATIONS - 1)
        spread_out = log_probabilities[is_location].gather(-1, bins + first_location_id)
        losses = losses.masked_scatter(is_location, -(spread_out @ (weights / weights.sum())))
    return losses.masked_fill(is_ignored, 0.0)


def _rate(progress: float, options: TrainingOptions) -> float:
    """The learning rate as a share of its plateau."""
    return max(0.01, min(1.0, progress / options.warmup, (1 - progress) / options.decay))


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """What learns of a model, for an optimiser: matrices decay, norms, biases and embeddings do not."""
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [p for p in learning if p.ndim > 1 and id(p) not in embeddings]
    others = [p for p in learning if p.ndim < 2 or id(p) in embeddings]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
