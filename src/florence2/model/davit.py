"""DaViT, the vision tower: pixels in, a grid of features out.

Channels-last throughout: between blocks a feature map is ``[images, rows, columns, channels]``, so that linear layers and
norms see contiguous channels and only the convolutions look at it as NCHW, through a view that moves no memory.

Source: DaViT (arXiv 2204.03645) as Florence-2 (arXiv 2311.06242) uses it; checked stage by stage against the reference
implementation. Knows nothing of text, positions or files.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.backends import cudnn

from florence2.model.attention import attend
from florence2.model.config import VisionConfig
from florence2.model.cpu.heap import give_back_memory
from florence2.model.linear import Linear

if TYPE_CHECKING:
    from jaxtyping import Float

# The number of positions of a feature map that go through a layer together on a CPU. A stage's largest tensors then fit the processor's
# caches and are reused by the allocator. Tensors of the first stage's whole map would be allocated from the system at each use.
CHUNK = 2304
LARGE = 1 << 22  # bytes of a feature map from which on giving back memory costs less than a fiftieth of the stage


def _convolve(conv: nn.Conv2d, grid: Tensor) -> Tensor:
    """``conv`` on a channels-last map: the two permutations are views of channels-last memory."""
    return conv(grid.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def _add_convolved(conv: nn.Conv2d, grid: Tensor) -> Tensor:
    """``grid`` plus ``conv`` of it; computed in place when no gradient is needed, so that only one map outlives the convolution."""
    convolved = _convolve(conv, grid)
    return convolved.add_(grid) if torch.is_grad_enabled() else grid.add_(convolved)


@contextlib.contextmanager
def _exact_convolutions(tensor: Tensor) -> Iterator[None]:
    """Convolutions of float32 on a GPU in float32. PyTorch's default there is TF32, which keeps 10 bits of each factor's 23."""
    if tensor.device.type != "cuda" or tensor.dtype != torch.float32:
        yield
        return
    try:
        before = cudnn.allow_tf32
    except RuntimeError:  # set by PyTorch's newer switches, one for each kind of operation: whoever did so has chosen
        yield
        return
    cudnn.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32 = before


def _chunk(tensor: Tensor) -> int:
    """The number of positions that are computed together on the device of ``tensor``; on a GPU all of them."""
    return CHUNK if tensor.device.type == "cpu" else max(1, tensor.numel())


def _by_parts(whole: Tensor, parts: Sequence[Tensor], dim: int, work: Callable[[Tensor], Tensor]) -> Tensor:
    """``whole`` with ``work(part)`` in place of each of its parts; ``work`` writes to the part where no gradient is computed."""
    done = [work(part) for part in parts]
    return torch.cat(done, dim=dim).view(whole.shape) if torch.is_grad_enabled() else whole


class ConvEmbed(nn.Module):
    """The start of a stage: a strided convolution that reduces the grid and widens the channels, with a norm before or after."""

    def __init__(self, config: VisionConfig, stage: int) -> None:
        super().__init__()
        channels_in = config.in_channels if stage == 0 else config.embed_dim[stage - 1]
        channels_out = config.embed_dim[stage]
        self.prenorm = config.patch_prenorm[stage]
        self.conv = nn.Conv2d(
            channels_in, channels_out, config.patch_size[stage], stride=config.patch_stride[stage], padding=config.patch_padding[stage]
        )
        self.norm = nn.LayerNorm(channels_in if self.prenorm else channels_out)

    def forward(self, grid: Float[Tensor, "images rows columns channels"]) -> Float[Tensor, "images rows2 columns2 channels2"]:
        """The feature map for the stage's blocks."""
        if self.prenorm:
            return _convolve(self.conv, self.norm(grid))
        return self.norm(_convolve(self.conv, grid))


class WindowAttention(nn.Module):
    """Multi-head attention inside non-overlapping square windows; other map sizes are padded on the right and below."""

    def __init__(self, width: int, num_heads: int, window_size: int, qkv_bias: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window_size = window_size
        self.qkv = Linear(width, 3 * width, bias=qkv_bias)
        self.proj = Linear(width, width)

    def forward(
        self, grid: Float[Tensor, "images rows columns channels"], norm: nn.LayerNorm
    ) -> Float[Tensor, "images rows columns channels"]:
        """``grid`` plus the attention output, in which each normalised position attends to its window."""
        windows_across = -(-grid.shape[2] // self.window_size)
        windows_down = max(1, round(_chunk(grid) / (grid.shape[0] * windows_across * self.window_size**2)))
        bands = grid.split(windows_down * self.window_size, dim=1)
        return _by_parts(grid, bands, 1, lambda band: self._add_attended(band, norm))

    def _add_attended(self, grid: Tensor, norm: nn.LayerNorm) -> Tensor:
        """``grid``, which is some rows of windows, plus the attention output."""
        images, rows, columns, channels = grid.shape
        size = self.window_size
        pad_right, pad_below = -columns % size, -rows % size
        padded, padded_norm = grid, norm
        if pad_right or pad_below:
            # As in the reference, padding is attended to: its normalised input is zero, so its key and value are the projection's bias.
            padded, padded_norm = F.pad(norm(grid), (0, 0, 0, pad_right, 0, pad_below)), None
        windows_down, windows_across = (rows + pad_below) // size, (columns + pad_right) // size
        windows = padded.unflatten(1, (windows_down, size)).unflatten(3, (windows_across, size)).transpose(2, 3)

        projected = self.qkv(windows, norm=padded_norm).view(-1, size * size, 3, self.num_heads, channels // self.num_heads)
        mixed = attend(*projected.permute(2, 0, 3, 1, 4))

        mixed = mixed.view(images, windows_down, windows_across, size, size, channels).transpose(2, 3)
        mixed = mixed.reshape(images, rows + pad_below, columns + pad_right, channels)
        return self.proj(mixed[:, :rows, :columns], add_to=grid)


class ChannelAttention(nn.Module):
    """Channel attention: within a group, channels attend to channels, and each score is a sum over all positions."""

    def __init__(self, width: int, num_groups: int, qkv_bias: bool) -> None:
        super().__init__()
        self.num_groups = num_groups
        self.qkv = Linear(width, 3 * width, bias=qkv_bias)
        self.proj = Linear(width, width)

    def forward(
        self, grid: Float[Tensor, "images rows columns channels"], norm: nn.LayerNorm
    ) -> Float[Tensor, "images rows columns channels"]:
        """``grid`` plus the attention output, in which each normalised channel attends to its group."""
        parts = grid.flatten(1, 2).split(_chunk(grid), dim=1)
        scale = (grid.shape[1] * grid.shape[2]) ** -0.5
        scores, values = 0.0, []
        for part in parts:
            query, key, value = self.qkv(part, norm=norm).unflatten(-1, (3, self.num_groups, -1)).permute(2, 0, 3, 1, 4)
            # Contiguous copies: the product sums over tokens, whose stride is three widths.
            scores = scores + ((query.contiguous().transpose(-1, -2) * scale) @ key.contiguous()).float()
            values.append(value.contiguous())  # a copy, so that the memory of queries and keys is freed
        weights = scores.softmax(dim=-1).to(grid.dtype).transpose(-1, -2)  # type: ignore[union-attr]
        left = iter(values)
        return _by_parts(grid, parts, 1, lambda part: self.proj((next(left) @ weights).transpose(1, 2).flatten(2), add_to=part))


class MLP(nn.Module):
    """Two linear layers with GELU between them."""

    def __init__(self, width: int, hidden_width: int) -> None:
        super().__init__()
        self.fc1 = Linear(width, hidden_width)
        self.fc2 = Linear(hidden_width, width)

    def forward(self, hidden: Float[Tensor, "tokens channels"], norm: nn.LayerNorm) -> Float[Tensor, "tokens channels"]:
        """``hidden`` plus the layers' output for each normalised token."""
        parts = hidden.split(_chunk(hidden))
        return _by_parts(hidden, parts, 0, lambda part: self.fc2(self.fc1(part, norm=norm, gelu=True, into=self.fc2), add_to=part))


class AttentionBlock(nn.Module):
    """Depthwise convolution, attention, depthwise convolution, MLP; each with a residual.

    The attention module is registered as ``attention_name`` because checkpoints name the two kinds differently.
    """

    def __init__(self, config: VisionConfig, stage: int, attention_name: str, attention: nn.Module) -> None:
        super().__init__()
        width = config.embed_dim[stage]
        self.attention_name = attention_name
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm1 = nn.LayerNorm(width)
        self.add_module(attention_name, attention)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm2 = nn.LayerNorm(width)
        self.ffn = MLP(width, int(width * config.mlp_ratio))

    def forward(self, grid: Float[Tensor, "images rows columns channels"]) -> Float[Tensor, "images rows columns channels"]:
        """A feature map of the same shape."""
        grid = _add_convolved(self.conv1, grid)
        grid = self.get_submodule(self.attention_name)(grid, self.norm1)
        grid = _add_convolved(self.conv2, grid)
        return self.ffn(grid.flatten(0, 2), self.norm2).view(grid.shape)


class DaViTBlock(nn.Module):
    """A spatial block (window attention) followed by a channel block (channel attention)."""

    def __init__(self, config: VisionConfig, stage: int) -> None:
        super().__init__()
        width = config.embed_dim[stage]
        window = WindowAttention(width, config.num_heads[stage], config.window_size, config.qkv_bias)
        channel = ChannelAttention(width, config.num_groups[stage], config.qkv_bias)
        self.spatial_block = AttentionBlock(config, stage, "window_attn", window)
        self.channel_block = AttentionBlock(config, stage, "channel_attn", channel)

    def forward(self, grid: Float[Tensor, "images rows columns channels"]) -> Float[Tensor, "images rows columns channels"]:
        """A feature map of the same shape."""
        return self.channel_block(self.spatial_block(grid))


class DaViT(nn.Module):
    """The vision tower: stages of one convolution and ``depths[stage]`` blocks."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        stages = range(len(config.embed_dim))
        self.convs = nn.ModuleList(ConvEmbed(config, stage) for stage in stages)
        self.blocks = nn.ModuleList(nn.ModuleList(DaViTBlock(config, stage) for _ in range(config.depths[stage])) for stage in stages)

    def stages(self, pixel_values: Float[Tensor, "images 3 height width"]) -> Iterator[Tensor]:
        """The feature map after each stage, ``[images, rows, columns, channels]``."""
        grid = pixel_values.to(self.convs[0].conv.weight.dtype).permute(0, 2, 3, 1).contiguous()  # type: ignore[union-attr]
        for conv, blocks in zip(self.convs, self.blocks, strict=True):
            grid = conv(grid)
            if grid.device.type == "cpu" and grid.nbytes >= LARGE and not torch.is_grad_enabled():
                give_back_memory()  # a stage's tensors have other sizes than those of the one before: the heap would grow by both
            for block in blocks:  # type: ignore[union-attr]
                grid = block(grid)
            yield grid

    def forward(self, pixel_values: Float[Tensor, "images 3 height width"]) -> Float[Tensor, "images rows columns channels"]:
        """The feature map of the last stage."""
        stages = self.stages(pixel_values)
        with _exact_convolutions(self.convs[0].conv.weight):  # type: ignore[union-attr]
            for _ in self.convs[1:]:  # type: ignore[index]
                next(stages)  # not held: a map is freed as soon as the next stage has read it
            return next(stages)
