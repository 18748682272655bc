"""Training batches: scenes drawn on the fly, their questions and answers as token ids.

In: the number of a batch. Out: a ``Batch`` with the pictures as bytes and their examples in groups. The number and the seed
decide everything, so a run that is resumed sees the batches that it would have seen. Knows the tokenizer and the scenes; nothing of the
model or the optimiser.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from florence2.scenes.scene import Scene, SceneOptions, draw_scene
from florence2.scenes.targets import Example, make_targets
from florence2.tasks.tokenizer import Tokenizer
from florence2.training.collation import Group, Row, make_groups
from florence2.training.demo.auxiliary_loss import grid_labels

CELL_PIXELS = 16  # of the finest map that has an auxiliary loss

# One row is one example for every picture, drawn among the tags by their weights; tags without an example are passed over.
MENU: tuple[dict[str, float], ...] = (
    {"<OD>": 0.45, "<DENSE_REGION_CAPTION>": 0.3, "<REGION_PROPOSAL>": 0.25},
    {"<CAPTION>": 0.8, "<DETAILED_CAPTION>": 0.13, "<MORE_DETAILED_CAPTION>": 0.07},
    {"<OCR>": 1.0},
    {"<OCR_WITH_REGION>": 0.5, "<REGION_TO_OCR>": 0.5},
    {"<REGION_TO_CATEGORY>": 0.6, "<REGION_TO_DESCRIPTION>": 0.4},
    {"<CAPTION_TO_PHRASE_GROUNDING>": 0.3, "<OPEN_VOCABULARY_DETECTION>": 0.7},
    {"<REFERRING_EXPRESSION_SEGMENTATION>": 0.65, "<REGION_TO_SEGMENTATION>": 0.35},
)


@dataclass(frozen=True)
class Stage:
    """One stage of a curriculum: what scenes hold until so many pictures were seen."""

    until: int
    options: SceneOptions


@dataclass(frozen=True)
class Batch:
    """Pictures, the groups of examples about them, and the labels of their cells.

    Attributes:
        pixels: uint8 ``[images, 3, height, width]``.
        groups: the examples.
        grids: uint8 ``[images, 4, cells, cells]``, as ``grid_labels`` makes them.
    """

    pixels: Tensor
    groups: tuple[Group, ...]
    grids: Tensor


class SceneBatches(Dataset[Batch]):
    """Batches by number.

    Args:
        tokenizer_folder: the folder whose tokenizer is used; it is loaded in each worker.
        size: side of the model's input in pixels.
        batch_images: number of pictures in a batch.
        seed: a stream of its own for each seed; evaluation draws from seeds that no training run uses.
        stages: the curriculum, by pictures seen; the last stage goes on for ever.
        menu: the questions to a picture, as in ``MENU``.
        resized_rate: share of scenes drawn larger than ``size`` and resized, as pictures of users are.
    """

    def __init__(
        self,
        tokenizer_folder: str,
        size: int,
        batch_images: int,
        seed: int,
        stages: Sequence[Stage],
        menu: Sequence[Mapping[str, float]] = MENU,
        resized_rate: float = 0.25,
    ) -> None:
        self.tokenizer_folder = tokenizer_folder
        self.size = size
        self.batch_images = batch_images
        self.seed = seed
        self.stages = tuple(stages)
        self.menu = tuple(menu)
        self.resized_rate = resized_rate
        self._tokenizer: Tokenizer | None = None

    def __len__(self) -> int:
        return 2**31

    def __getitem__(self, number: int) -> Batch:
        rng = np.random.default_rng([self.seed, number])
        options = self._options(number * self.batch_images)
        scenes = [self._scene(rng, options) for _ in range(self.batch_images)]
        examples = [(index, example) for index, scene in enumerate(scenes) for example in draw_examples(scene, rng, self.menu)]
        pixels = np.stack([np.asarray(scene.image.resize((self.size, self.size), Image.Resampling.BICUBIC)) for scene in scenes])
        grids = np.stack([grid_labels(scene, self.size // CELL_PIXELS, options.lexicon) for scene in scenes])
        return Batch(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), self._groups(examples), torch.from_numpy(grids))

    def _options(self, images_seen: int) -> SceneOptions:
        return next((stage.options for stage in self.stages if images_seen < stage.until), self.stages[-1].options)

    def _scene(self, rng: np.random.Generator, options: SceneOptions) -> Scene:
        is_resized = rng.uniform() < self.resized_rate
        return draw_scene(rng, size=int(rng.integers(self.size, 2 * self.size)) if is_resized else self.size, options=options)

    def _groups(self, examples: Sequence[tuple[int, Example]]) -> tuple[Group, ...]:
        if self._tokenizer is None:
            self._tokenizer = Tokenizer.load(self.tokenizer_folder)
        tokenizer = self._tokenizer
        return make_groups(
            [Row(index, example.tag, tokenizer.encode(example.sentence), tokenizer.encode(example.answer)) for index, example in examples]
        )


def draw_examples(scene: Scene, rng: np.random.Generator, menu: Sequence[Mapping[str, float]] = MENU) -> list[Example]:
    """One example from each row of the menu, so far as the scene has one to give."""
    targets = make_targets(scene, rng)
    chosen = []
    for row in menu:
        tags = [tag for tag in row if targets[tag]]
        if tags:
            weights = np.array([row[tag] for tag in tags])
            tag = tags[int(rng.choice(len(tags), p=weights / weights.sum()))]
            chosen.append(targets[tag][int(rng.integers(len(targets[tag])))])
    return chosen
