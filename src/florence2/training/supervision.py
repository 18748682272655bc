"""Direct supervision of the vision tower while it is young.

Answers reach the tower through decoder and encoder, a long way for a first gradient. Two linear heads on the tower's last two
maps say, cell by cell, which colour, which kind of shape and which word is there; they are thrown away after training.

In: a scene, or the tower's maps and the label grids of a batch. Out: a label grid, or a loss. Knows nothing of text.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor, nn

from florence2.training.palette import COLOURS
from florence2.training.scenes import Scene
from florence2.training.shapes import KINDS

NOTHING = 0
NOTHING_WEIGHT = 0.2  # most cells are background: it would drown the rest
_OVERSAMPLING = 4


def grid_labels(scene: Scene, cells: int, words: Sequence[str]) -> np.ndarray:
    """What the middle of each cell shows: uint8 ``[3, cells, cells]`` of colour, kind and word, counted from 1; 0 is nothing."""
    side = cells * _OVERSAMPLING
    scale = side / scene.image.width
    grids = []
    for table, names in ((tuple(COLOURS), [thing.colour for thing in scene.objects]), (KINDS, [thing.kind for thing in scene.objects])):
        canvas = Image.new("L", (side, side))
        for thing, name in zip(scene.objects, names, strict=True):
            ImageDraw.Draw(canvas).polygon([(x * scale, y * scale) for x, y in thing.polygon], fill=1 + table.index(name))
        grids.append(canvas)
    canvas = Image.new("L", (side, side))
    for word in scene.words:
        ImageDraw.Draw(canvas).rectangle([value * scale for value in word.box], fill=1 + list(words).index(word.text.lower()))
    grids.append(canvas)
    middle = _OVERSAMPLING // 2
    return np.stack([np.asarray(grid)[middle::_OVERSAMPLING, middle::_OVERSAMPLING] for grid in grids])


class GridSupervision(nn.Module):
    """Linear heads on the last two maps of a tower.

    Args:
        widths: channels of the last two maps.
        num_words: how many words there are.
    """

    def __init__(self, widths: Sequence[int], num_words: int) -> None:
        super().__init__()
        self.sizes = (1 + len(COLOURS), 1 + len(KINDS), 1 + num_words)
        self.heads = nn.ModuleList(nn.Sequential(nn.LayerNorm(width), nn.Linear(width, sum(self.sizes))) for width in widths)

    def forward(self, maps: Sequence[Tensor], grids: Tensor) -> Tensor:
        """Mean cross entropy over maps and questions.

        Args:
            maps: the tower's maps, ``[images, rows, columns, channels]`` each; the last two are used.
            grids: labels, ``[images, 3, cells, cells]``, of the finest map that is used.
        """
        losses = []
        for head, grid_map in zip(self.heads, maps[-len(self.heads) :], strict=True):
            step = grids.shape[2] // grid_map.shape[1]
            labels = grids[:, :, step // 2 :: step, step // 2 :: step].long()
            for question, logits in enumerate(head(grid_map).split(self.sizes, dim=-1)):
                weight = torch.ones(logits.shape[-1], device=logits.device)
                weight[NOTHING] = NOTHING_WEIGHT
                losses.append(F.cross_entropy(logits.flatten(0, 2), labels[:, question].flatten(), weight=weight))
        return torch.stack(losses).mean()
