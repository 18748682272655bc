"""The dimensions of a Florence-2 model, by name.

Plain frozen values: they come from a checkpoint's ``config.json`` (read in ``florence2.weights``) or from the training code, and go to
the modules of this package. They know nothing of files or of the two published layouts.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class VisionConfig:
    """Dimensions of the DaViT vision tower; sequences have one entry per stage. Defaults: Florence-2-base."""

    embed_dim: tuple[int, ...] = (128, 256, 512, 1024)
    depths: tuple[int, ...] = (1, 1, 9, 1)
    num_heads: tuple[int, ...] = (4, 8, 16, 32)
    num_groups: tuple[int, ...] = (4, 8, 16, 32)
    patch_size: tuple[int, ...] = (7, 3, 3, 3)
    patch_stride: tuple[int, ...] = (4, 2, 2, 2)
    patch_padding: tuple[int, ...] = (3, 1, 1, 1)
    patch_prenorm: tuple[bool, ...] = (False, True, True, True)
    window_size: int = 12
    in_channels: int = 3
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    projection_dim: int = 768
    max_position_embeddings: int = 50
    max_temporal_embeddings: int = 100

    def __post_init__(self) -> None:
        """Check that all sequences have one entry per stage."""
        for name in ("depths", "num_heads", "num_groups", "patch_size", "patch_stride", "patch_padding", "patch_prenorm"):
            if len(getattr(self, name)) != len(self.embed_dim):
                raise ValueError(
                    f"vision config: {name} has {len(getattr(self, name))} entries, expected one per stage: {len(self.embed_dim)}"
                )

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """The tower's output grid (rows, columns) for an image of this size in pixels."""
        for size, stride, padding in zip(self.patch_size, self.patch_stride, self.patch_padding, strict=True):
            height = (height + 2 * padding - size) // stride + 1
            width = (width + 2 * padding - size) // stride + 1
        return height, width

    def num_image_tokens(self, height: int, width: int) -> int:
        """The number of tokens that the projector makes of an image: the mean token, then the grid."""
        rows, columns = self.grid_size(height, width)
        return rows * columns + 1


@dataclass(frozen=True)
class TextConfig:
    """Dimensions of the BART encoder and decoder. Defaults: Florence-2-base."""

    vocab_size: int = 51289
    d_model: int = 768
    encoder_layers: int = 6
    decoder_layers: int = 6
    encoder_attention_heads: int = 12
    decoder_attention_heads: int = 12
    encoder_ffn_dim: int = 3072
    decoder_ffn_dim: int = 3072
    max_position_embeddings: int = 1024
    scale_embedding: bool = False
    pad_token_id: int = 1

    def __post_init__(self) -> None:
        """Check that the width is a multiple of the number of heads."""
        for heads in (self.encoder_attention_heads, self.decoder_attention_heads):
            if self.d_model % heads:
                raise ValueError(f"text config: d_model {self.d_model} is not a multiple of its {heads} attention heads")


@dataclass(frozen=True)
class Florence2Config:
    """One model: the vision tower, the text model, and the placeholder id that native checkpoints reserve for image tokens."""

    vision: VisionConfig
    text: TextConfig
    image_token_id: int | None = None
