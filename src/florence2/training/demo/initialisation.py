"""Random weights from which the demo model trains well.

In: a model and a seed. Out: the same model, its weights filled. Knows nothing of training.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from florence2.model import Florence2
from florence2.tasks.vocabulary import NUM_BINS

POSITION_SCALE = 1.0
DEPTHWISE_STD = 0.15


def initialise(model: Florence2, first_location_id: int, seed: int) -> None:
    """Fill a new model with random weights that train well.

    Matrices are Xavier-uniform, embeddings small. The embeddings of the location tokens begin as
    smooth functions of the bin, so that neighbours resemble each other from the first step, and those of the image's rows and
    columns as large as the features that they are added to: at the usual 0.02 the model can't know a feature's position.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight, generator=generator)
        elif isinstance(module, nn.Conv2d):
            # Depthwise convolutions are added to what they read, a dozen times over. At 1/3 (their fan-in) each doubles the
            # stream, and what attention adds drowns in it; near zero no position knows its neighbours, and shapes
            # can't be distinguished.
            std = DEPTHWISE_STD if module.groups > 1 else (module.weight[0].numel()) ** -0.5
            nn.init.normal_(module.weight, std=std, generator=generator)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02, generator=generator)
        if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
            nn.init.zeros_(module.bias)
    table = model.language_model.shared.weight
    positions = model.multi_modal_projector.image_position_embed
    with torch.no_grad():
        table[first_location_id : first_location_id + NUM_BINS] = 0.03 * _smooth(NUM_BINS, table.shape[1], 30.0, generator)
        for embedding in (positions.row_embeddings, positions.column_embeddings):
            num_positions, width = embedding.weight.shape
            embedding.weight.copy_(POSITION_SCALE * _smooth(num_positions, width, 6.0, generator))


def _smooth(num_positions: int, width: int, waves: float, generator: torch.Generator) -> Tensor:
    """``[num_positions, width]``: cosines of the position with random rates and phases, values from -1 to 1."""
    positions = torch.linspace(0, 1, num_positions).unsqueeze(1)
    rates = torch.randn(1, width, generator=generator) * waves
    phases = torch.rand(1, width, generator=generator) * 2 * torch.pi
    return torch.cos(positions * rates + phases)
