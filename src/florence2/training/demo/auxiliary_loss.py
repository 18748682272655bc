"""An auxiliary loss on the vision tower, for the first part of its training.

Gradients of answers reach the tower through decoder and encoder, and are weak at first. Two linear heads on the tower's last two maps
predict, cell by cell, which colour, which kind of shape, which word and which letter is there; they are not kept after training.

In: a scene, or the tower's maps and the label grids of a batch. Out: a label grid, or a loss. Knows nothing of text.
"""

from __future__ import annotations

import string
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor, nn

from florence2.scenes.palette import COLOURS
from florence2.scenes.scene import Scene
from florence2.scenes.shapes import ALL_KINDS

NOTHING = 0
LETTERS = string.ascii_letters + string.digits
NOTHING_WEIGHT = 0.2  # most cells are background: it would drown the rest
_OVERSAMPLING = 4


def grid_labels(scene: Scene, cells: int, words: Sequence[str]) -> np.ndarray:
    """The labels of each cell's middle: uint8 ``[4, cells, cells]`` of colour, kind, word and letter, counted from 1; 0 is nothing.

    A word that is not in ``words``, such as a number, counts as one more behind them.
    """
    side = cells * _OVERSAMPLING
    scale = side / scene.image.width
    grids = []
    for table, names in ((tuple(COLOURS), [thing.colour for thing in scene.objects]), (ALL_KINDS, [thing.kind for thing in scene.objects])):
        canvas = Image.new("L", (side, side))
        for thing, name in zip(scene.objects, names, strict=True):
            ImageDraw.Draw(canvas).polygon([(x * scale, y * scale) for x, y in thing.polygon], fill=1 + table.index(name))
        grids.append(canvas)
    numbers = {word: index for index, word in enumerate(words, start=1)}
    word_canvas, letter_canvas = Image.new("L", (side, side)), Image.new("L", (side, side))
    for word in scene.words:
        ImageDraw.Draw(word_canvas).rectangle([value * scale for value in word.box], fill=numbers.get(word.text.lower(), 1 + len(numbers)))
        for letter, start, end in zip(word.text, (0.0, *word.letter_ends[:-1]), word.letter_ends, strict=True):
            ImageDraw.Draw(letter_canvas).polygon(_slice(word.quad, start, end, scale), fill=1 + LETTERS.index(letter))
    grids += [word_canvas, letter_canvas]
    middle = _OVERSAMPLING // 2
    return np.stack([np.asarray(grid)[middle::_OVERSAMPLING, middle::_OVERSAMPLING] for grid in grids])


def _slice(quad: Sequence[float], start: float, end: float, scale: float) -> list[tuple[float, float]]:
    """The part of a word's quad between two fractions of its width, as corners."""
    corners = np.array(quad).reshape(4, 2) * scale
    top, bottom = corners[1] - corners[0], corners[2] - corners[3]
    ends = (corners[0] + start * top, corners[0] + end * top, corners[3] + end * bottom, corners[3] + start * bottom)
    return [(float(x), float(y)) for x, y in ends]


class GridLoss(nn.Module):
    """Linear heads on the last two maps of a tower.

    Args:
        widths: channels of the last two maps.
        num_words: size of the lexicon.
    """

    def __init__(self, widths: Sequence[int], num_words: int) -> None:
        super().__init__()
        self.sizes = (1 + len(COLOURS), 1 + len(ALL_KINDS), 2 + num_words, 1 + len(LETTERS))
        self.heads = nn.ModuleList(nn.Sequential(nn.LayerNorm(width), nn.Linear(width, sum(self.sizes))) for width in widths)

    def forward(self, maps: Sequence[Tensor], grids: Tensor) -> Tensor:
        """Mean cross entropy over maps and kinds of labels.

        Args:
            maps: the tower's maps, ``[images, rows, columns, channels]`` each; the last two are used.
            grids: labels, ``[images, 4, cells, cells]``, of the finest map that is used.
        """
        losses = []
        for head, grid_map in zip(self.heads, maps[-len(self.heads) :], strict=True):
            step = grids.shape[2] // grid_map.shape[1]
            labels = grids[:, :, step // 2 :: step, step // 2 :: step].long()
            for row, logits in enumerate(head(grid_map).split(self.sizes, dim=-1)):
                weight = torch.ones(logits.shape[-1], device=logits.device)
                weight[NOTHING] = NOTHING_WEIGHT
                losses.append(F.cross_entropy(logits.flatten(0, 2), labels[:, row].flatten(), weight=weight))
        return torch.stack(losses).mean()
