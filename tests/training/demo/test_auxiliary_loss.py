"""Label grids show what the picture shows, and the heads can learn them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from florence2.scenes.palette import COLOURS
from florence2.scenes.scene import SceneOptions, draw_scene
from florence2.scenes.shapes import KINDS
from florence2.training.demo.auxiliary_loss import LETTERS, NOTHING, GridLoss, grid_labels


def test_cells_name_the_shape_that_covers_them():
    options = SceneOptions(num_objects=(2, 2), num_words=(1, 1), max_overlap=0.0, object_size=(0.3, 0.4))
    scene = draw_scene(np.random.default_rng(5), size=192, options=options)
    colours, kinds, words, letters = grid_labels(scene, 12, options.lexicon)
    for thing in scene.objects:
        if thing.kind == "moon":
            continue
        column, row = (int((thing.box[i] + thing.box[i + 2]) / 2 // 16) for i in (0, 1))
        assert tuple(COLOURS)[colours[row, column] - 1] == thing.colour
        assert KINDS[kinds[row, column] - 1] == thing.kind
    word = scene.words[0]
    column, row = (int((word.box[i] + word.box[i + 2]) / 2 // 16) for i in (0, 1))
    assert options.lexicon[words[row, column] - 1] == word.text.lower()
    assert LETTERS[letters[row, column] - 1] in word.text
    assert np.array_equal(words == NOTHING, letters == NOTHING)
    assert (colours == NOTHING).sum() > 20
    assert np.array_equal(colours == NOTHING, kinds == NOTHING)


def test_the_later_shape_is_on_top():
    options = SceneOptions(num_objects=(5, 5), num_words=(0, 0), object_size=(0.2, 0.4))
    for seed in range(5):
        scene = draw_scene(np.random.default_rng(seed), size=192, options=options)
        top = scene.objects[-1]
        colours, _, _, _ = grid_labels(scene, 192 // 4, options.lexicon)
        if top.kind not in ("moon", "cross", "star"):
            x, y = (int((top.box[i] + top.box[i + 2]) / 2 // 4) for i in (0, 1))
            assert tuple(COLOURS)[colours[y, x] - 1] == top.colour


@pytest.mark.slow
def test_the_heads_learn_what_the_maps_hold():
    torch.manual_seed(0)
    supervision = GridLoss((21, 21), num_words=3)
    grids = torch.randint(0, 3, (4, 4, 12, 12))
    fine = torch.nn.functional.one_hot(grids, 5).permute(0, 2, 3, 1, 4).flatten(3)
    maps = [torch.zeros(1), torch.nn.functional.pad(fine.float(), (0, 1)), torch.nn.functional.pad(fine[:, 1::2, 1::2].float(), (0, 1))]
    optimiser = torch.optim.Adam(supervision.parameters(), 0.05)
    first = last = 0.0
    for step in range(80):
        loss = supervision(maps, grids)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        first, last = (loss.item() if step == 0 else first), loss.item()
    assert last < 0.05 < 1.0 < first
