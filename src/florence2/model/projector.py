"""The projector: from the vision tower's grid to image tokens of the text model's width.

Adds learned 2-D positions and the temporal embedding of the first (only) frame, prepends the mean of all positions, projects and
normalises. Source: Florence-2 (arXiv 2311.06242), feature sources "spatial_avg_pool" and
"temporal_avg_pool", which for one frame are the mean and the grid itself.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from florence2.model.config import VisionConfig
from florence2.model.linear import Linear

if TYPE_CHECKING:
    from jaxtyping import Float


class PositionEmbedding2D(nn.Module):
    """Learned positions: the column's embedding in the first half of the channels, the row's in the second."""

    def __init__(self, num_positions: int, width: int) -> None:
        super().__init__()
        self.row_embeddings = nn.Embedding(num_positions, width // 2)
        self.column_embeddings = nn.Embedding(num_positions, width - width // 2)

    def forward(self, rows: int, columns: int) -> Float[Tensor, "rows columns channels"]:
        """One embedding for each cell of a grid of this size."""
        across = self.column_embeddings.weight[:columns].unsqueeze(0).expand(rows, -1, -1)
        down = self.row_embeddings.weight[:rows].unsqueeze(1).expand(-1, columns, -1)
        return torch.cat([across, down], dim=-1)


class TemporalEmbedding(nn.Module):
    """Cosine embedding of the frame's index; images are frame 0."""

    pos_idx_to_embed: Tensor

    def __init__(self, num_frames: int, width: int) -> None:
        super().__init__()
        with torch.device("cpu"):  # on "meta" PyTorch's compiler would compute it, which takes seconds to load
            table = temporal_table(num_frames, width)
        self.register_buffer("pos_idx_to_embed", table)

    def forward(self) -> Float[Tensor, " channels"]:
        """The embedding of frame 0."""
        return self.pos_idx_to_embed[0]


def temporal_table(num_frames: int, width: int) -> Float[Tensor, "frames channels"]:
    """Sines on even channels and cosines on odd ones, with wavelengths from 2 pi towards 10,000 x 2 pi frames."""
    half = width // 2
    rates = torch.exp(torch.arange(half).float() * (-math.log(10000) / half))
    angles = torch.arange(num_frames).float().unsqueeze(1) * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


class Projector(nn.Module):
    """The layers from the tower's feature map to image tokens."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width = config.embed_dim[-1]
        self.image_position_embed = PositionEmbedding2D(config.max_position_embeddings, width)
        self.visual_temporal_embed = TemporalEmbedding(config.max_temporal_embeddings, width)
        self.image_projection = Linear(width, config.projection_dim, bias=False)
        self.image_proj_norm = nn.LayerNorm(config.projection_dim)

    def forward(self, grid: Float[Tensor, "images rows columns channels"]) -> Float[Tensor, "images tokens width"]:
        """``1 + rows x columns`` tokens per image: the mean first, then the grid row by row."""
        positions = self.image_position_embed(grid.shape[1], grid.shape[2])
        tokens = (grid + positions).flatten(1, 2) + self.visual_temporal_embed()
        tokens = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1)
        return self.image_proj_norm(self.image_projection(tokens))
