"""What fine-tuning makes small: records in, the loss of their answers out.

A record is learnt from its answer, by the reference's cross entropy, or rehearsed: then the model shall go on giving every token of the
answer, and all that could stand in its place, the probability that it gave before training. A model that is as good as it gets has
gradients of pure chance from answers; from its own probabilities it has none, and stays. Knows nothing of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from florence2.datasets.record import DataSet, Picture, Record, open_picture, sift
from florence2.datasets.round_trip import check_survival
from florence2.engine.preprocess import preprocess
from florence2.errors import DatasetError, InvalidImage
from florence2.evaluation.metrics import FREE
from florence2.model import Florence2
from florence2.tasks.tokenizer import Tokenizer
from florence2.training.demo.batches import IGNORED, Group, Row, count_tokens, make_groups
from florence2.training.demo.trainer import answer_losses, arithmetic, group_logits
from florence2.weights.checkpoint import Checkpoint, ImageSettings

Teacher = Callable[[], AbstractContextManager[Florence2]]
"""Lends the model as it was before training."""


@dataclass(frozen=True)
class Questions:
    """Some records as tensors.

    Attributes:
        pixels: float32 ``[pictures, 3, height, width]``, each picture once; those that are rehearsed come first.
        learnt: examples that are learnt from their answers.
        rehearsed: examples that are kept as they were.
    """

    pixels: Tensor
    learnt: tuple[Group, ...]
    rehearsed: tuple[Group, ...]

    @property
    def num_tokens(self) -> int:
        """Tokens of all answers."""
        return count_tokens(self.learnt) + count_tokens(self.rehearsed)


class Objective:
    """The loss of one model.

    Args:
        model: the one that learns.
        tokenizer: its.
        image: how its pictures are preprocessed.
        teacher: asked where something is rehearsed.
        is_mixed: matrix products in bfloat16.
    """

    def __init__(self, model: Florence2, tokenizer: Tokenizer, image: ImageSettings, teacher: Teacher, *, is_mixed: bool) -> None:
        self.model, self.tokenizer, self.image, self.teacher = model, tokenizer, image, teacher
        self.is_mixed = is_mixed
        self._tower_learns = any(parameter.requires_grad for parameter in model.vision_tower.parameters())

    def prepare(self, records: Sequence[Record]) -> Questions:
        """Records as tensors.

        Raises:
            DatasetError: a picture can not be read any longer.
        """
        pictures: dict[Picture, int] = {}
        rows: dict[bool, list[Row]] = {True: [], False: []}
        for record in sorted(records, key=lambda record: not record.is_rehearsed):
            question = record.question
            index = pictures.setdefault(record.picture, len(pictures))
            ids = (self.tokenizer.encode(words) for words in (question.sentence, record.answers[0]))
            rows[record.is_rehearsed].append(Row(index, question.tag or FREE, *ids))
        try:
            pixels = torch.stack([preprocess(open_picture(picture), self.image) for picture in pictures])
        except InvalidImage as error:  # one that was sound when the run began
            raise DatasetError(f"{records[0].where} to {records[-1].where}: {error}") from error
        return Questions(pixels, make_groups(rows[False]), make_groups(rows[True]))

    def loss(self, questions: Questions) -> Tensor:
        """The loss of the answers, summed over their tokens."""
        pixels = questions.pixels.to(self.model.device)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._tower_learns):
            grid = self._grid(self.model, pixels)
        features = self._project(self.model, grid)
        losses = [answer_losses(self._logits(self.model, features, group), group.labels) for group in questions.learnt]
        if questions.rehearsed:
            before = self._before(pixels, grid, questions.rehearsed)
            for group, logits in zip(questions.rehearsed, before, strict=True):
                losses.append(divergences(self._logits(self.model, features, group), logits, group.labels))
        return torch.stack([loss.sum() for loss in losses]).sum()

    @torch.no_grad()
    def _before(self, pixels: Tensor, grid: Tensor, groups: Sequence[Group]) -> list[Tensor]:
        """The logits that the model had for these examples before training."""
        count = 1 + max(int(group.image_index.max()) for group in groups)
        with self.teacher() as model:
            known = self._grid(model, pixels[:count]) if self._tower_learns else grid[:count]
            features = self._project(model, known)
            return [self._logits(model, features, group) for group in groups]

    def _grid(self, model: Florence2, pixels: Tensor) -> Tensor:
        with arithmetic(pixels.device, is_mixed=self.is_mixed):
            return model.vision_tower(pixels)

    def _project(self, model: Florence2, grid: Tensor) -> Tensor:
        with arithmetic(grid.device, is_mixed=self.is_mixed):
            return model.multi_modal_projector(grid)

    def _logits(self, model: Florence2, features: Tensor, group: Group) -> Tensor:
        return group_logits(model, features, group, is_mixed=self.is_mixed)


def with_room(records: Sequence[Record], checkpoint: Checkpoint, tokenizer: Tokenizer, name: str) -> DataSet:
    """The records that a model has room for and whose answers its tokens can say, and what is wrong with the others.

    What is rehearsed is answered in its own tokens already. ``name`` is what the records are called in messages.
    """
    text, image = checkpoint.config.text, checkpoint.image
    room = text.max_position_embeddings
    num_image_tokens = checkpoint.config.vision.num_image_tokens(image.height, image.width)

    def fault(record: Record) -> str | None:
        prompt, answer = (len(tokenizer.encode(words)) for words in (record.question.sentence, record.answers[0]))
        if prompt + num_image_tokens > room:
            return f"the prompt has {prompt} tokens; there is room for {room - num_image_tokens}"
        if answer > room:
            return f"the answer has {answer} tokens; there is room for {room}"
        return None if record.is_rehearsed else check_survival(record.answers[0], record.question, tokenizer, checkpoint.banned_phrases)

    return sift(records, fault, name)


def divergences(logits: Tensor, before: Tensor, labels: Tensor) -> Tensor:
    """How far every token's probabilities are from those before training, ``[examples, tokens]``, zero at ignored places.

    Measured by the Kullback-Leibler divergence, in nats, of what is given now from what was given then.
    """
    now, was = F.log_softmax(logits.float(), dim=-1), F.log_softmax(before.float(), dim=-1)
    apart = F.kl_div(now, was, reduction="none", log_target=True).sum(dim=-1)
    return apart.masked_fill(labels.to(apart.device) == IGNORED, 0.0)
