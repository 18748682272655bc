"""The losses of training: of answers, and of what a model must not forget.

A record is trained on its answer, by the reference's cross entropy, or by self-distillation: then the model shall go on giving every
token of the answer, and all tokens that could stand in its place, the probability that it gave before training. A model that is as good
as it gets has gradients of pure chance from answers; from its own probabilities it has none, and stays. Knows nothing of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from florence2.datasets.pictures import Picture
from florence2.datasets.record import Record
from florence2.engine.preprocess import preprocess
from florence2.errors import DatasetError, InvalidImage
from florence2.evaluation.metrics import FREE
from florence2.model import Florence2
from florence2.tasks.tokenizer import Tokenizer
from florence2.tasks.vocabulary import NUM_BINS
from florence2.training.autocast import autocast
from florence2.training.collation import IGNORED, Group, Row, count_tokens, make_groups
from florence2.weights.checkpoint import ImageSettings

Teacher = Callable[[], AbstractContextManager[Florence2]]
"""A context with the model as it was before training."""


def group_logits(model: Florence2, features: Tensor, group: Group, *, is_mixed: bool) -> Tensor:
    """The model's logits for a group's examples about pictures with these features: ``[examples, tokens, vocabulary]``."""
    device = features.device
    with autocast(device, is_mixed=is_mixed):
        chosen = features[group.image_index]
        return model(chosen, group.prompt_ids.to(device), group.prompt_lengths, group.decoder_ids.to(device))


def answer_losses(logits: Tensor, labels: Tensor, first_location_id: int = 0, spread: float = 0.0) -> Tensor:
    """Cross entropy of every token, ``[examples, tokens]``, zero at ignored positions.

    Location tokens have a target that is spread over the bins around the true one (a normal distribution with ``spread``
    bins of standard deviation, cut at two of them); with ``spread`` 0 they are tokens like all others.
    """
    labels = labels.to(logits.device)
    log_probabilities = F.log_softmax(logits.float(), dim=-1)
    is_ignored = labels == IGNORED
    targets = labels.masked_fill(is_ignored, 0)
    losses = -log_probabilities.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    is_location = (targets >= first_location_id) & (targets < first_location_id + NUM_BINS)
    if spread > 0 and bool(is_location.any()):
        reach = max(1, round(2 * spread))
        offsets = torch.arange(-reach, reach + 1, device=labels.device)
        weights = torch.exp(-0.5 * (offsets / spread) ** 2)
        bins = (targets[is_location].unsqueeze(-1) - first_location_id + offsets).clamp(0, NUM_BINS - 1)
        spread_out = log_probabilities[is_location].gather(-1, bins + first_location_id)
        losses = losses.masked_scatter(is_location, -(spread_out @ (weights / weights.sum())))
    return losses.masked_fill(is_ignored, 0.0)


def kl_divergences(logits: Tensor, before: Tensor, labels: Tensor) -> Tensor:
    """The Kullback-Leibler divergence of every token's probabilities from those before training, in nats.

    ``[examples, tokens]``, zero at ignored positions.
    """
    now, was = F.log_softmax(logits.float(), dim=-1), F.log_softmax(before.float(), dim=-1)
    divergences = F.kl_div(now, was, reduction="none", log_target=True).sum(dim=-1)
    return divergences.masked_fill(labels.to(divergences.device) == IGNORED, 0.0)


@dataclass(frozen=True)
class RecordBatch:
    """Some records, their texts as tensors.

    Attributes:
        pictures: each picture once; those of ``distilled`` come first.
        image: how pictures are preprocessed.
        supervised: examples that are trained on their answers.
        distilled: examples that are trained on the probabilities that the model gave before training.
        where: the first and the last record's position in their source, for messages.
    """

    pictures: tuple[Picture, ...]
    image: ImageSettings
    supervised: tuple[Group, ...]
    distilled: tuple[Group, ...]
    where: str

    @property
    def num_tokens(self) -> int:
        """The number of tokens of all answers."""
        return count_tokens(self.supervised) + count_tokens(self.distilled)

    def read_pixels(self) -> Tensor:
        """The pictures as float32 ``[pictures, 3, height, width]``.

        Raises:
            DatasetError: a picture can no longer be read.
        """
        try:
            return torch.stack([preprocess(picture.open(), self.image) for picture in self.pictures])
        except InvalidImage as error:  # one that was valid when the run began
            raise DatasetError(f"{self.where}: {error}") from error


class RecordLosses:
    """The loss of one model on batches of records.

    Args:
        model: the one that is trained.
        tokenizer: the model's.
        image: how its pictures are preprocessed.
        teacher: used where a record is rehearsed.
        is_mixed: matrix products in bfloat16.
    """

    def __init__(self, model: Florence2, tokenizer: Tokenizer, image: ImageSettings, teacher: Teacher, *, is_mixed: bool) -> None:
        self.model, self.tokenizer, self.image, self.teacher = model, tokenizer, image, teacher
        self.is_mixed = is_mixed
        self._is_tower_trainable = any(parameter.requires_grad for parameter in model.vision_tower.parameters())

    def collate(self, records: Sequence[Record]) -> RecordBatch:
        """Records as a batch; their pictures are not read yet."""
        pictures: dict[Picture, int] = {}
        rows: dict[bool, list[Row]] = {True: [], False: []}
        for record in sorted(records, key=lambda record: not record.is_rehearsed):
            question = record.question
            index = pictures.setdefault(record.picture, len(pictures))
            ids = (self.tokenizer.encode(words) for words in (question.sentence, record.answers[0]))
            rows[record.is_rehearsed].append(Row(index, question.tag or FREE, *ids))
        where = f"{records[0].where} to {records[-1].where}"
        return RecordBatch(tuple(pictures), self.image, make_groups(rows[False]), make_groups(rows[True]), where)

    def total(self, batch: RecordBatch) -> Tensor:
        """The loss of the answers, summed over their tokens.

        Raises:
            DatasetError: a picture can no longer be read.
        """
        pixels = batch.read_pixels().to(self.model.device)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._is_tower_trainable):
            grid = self._grid(self.model, pixels)
        features = self._project(self.model, grid)
        losses = [answer_losses(self._logits(self.model, features, group), group.labels) for group in batch.supervised]
        if batch.distilled:
            before = self._before(pixels, grid, batch.distilled)
            for group, logits in zip(batch.distilled, before, strict=True):
                losses.append(kl_divergences(self._logits(self.model, features, group), logits, group.labels))
        return torch.stack([loss.sum() for loss in losses]).sum()

    @torch.no_grad()
    def _before(self, pixels: Tensor, grid: Tensor, groups: Sequence[Group]) -> list[Tensor]:
        """The logits that the model had for these examples before training."""
        count = 1 + max(int(group.image_index.max()) for group in groups)
        with self.teacher() as model:
            known = self._grid(model, pixels[:count]) if self._is_tower_trainable else grid[:count]
            features = self._project(model, known)
            return [self._logits(model, features, group) for group in groups]

    def _grid(self, model: Florence2, pixels: Tensor) -> Tensor:
        with autocast(pixels.device, is_mixed=self.is_mixed):
            return model.vision_tower(pixels)

    def _project(self, model: Florence2, grid: Tensor) -> Tensor:
        with autocast(grid.device, is_mixed=self.is_mixed):
            return model.multi_modal_projector(grid)

    def _logits(self, model: Florence2, features: Tensor, group: Group) -> Tensor:
        return group_logits(model, features, group, is_mixed=self.is_mixed)
