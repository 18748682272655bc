"""BART, the text model: an encoder over image tokens and prompt, a decoder with a key/value cache.

Post-norm layers, GELU, learned positions with BART's offset of 2, one embedding table shared by encoder, decoder and head.
The cache is a value that the caller holds: rows (one per beam) grouped by request. Keys and values of cross attention are
stored once per request, and its beams attend to them together.

Source: BART (arXiv 1910.13461) as the reference implementation builds it for Florence-2. Knows nothing of search or tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from florence2.model.cache import DecoderCache, LayerCache
from florence2.model.config import TextConfig

POSITION_OFFSET = 2


@dataclass(frozen=True)
class EncodedPrompts:
    """The encoder's output: what the decoder attends to.

    ``hidden`` is ``[prompts, source, width]``, padded on the right; ``lengths`` counts the valid positions of each.
    """

    hidden: Float[Tensor, "prompts source width"]
    lengths: tuple[int, ...]


def padding_mask(lengths: Sequence[int], size: int, device: torch.device) -> Bool[Tensor, "prompts 1 1 size"] | None:
    """True where a position is valid, or None where all are (attention is faster without a mask)."""
    if min(lengths) == size:
        return None
    valid = torch.arange(size, device=device) < torch.tensor(lengths, device=device).unsqueeze(1)
    return valid[:, None, None, :]


class Attention(nn.Module):
    """Multi-head attention with separate projections."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def heads(self, projected: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch heads tokens head_width"]:
        """The projected tokens, one slice a head."""
        return projected.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def keys_values(self, source: Float[Tensor, "batch tokens width"]) -> tuple[Tensor, Tensor]:
        """Keys and values of ``source``, each ``[batch, heads, tokens, head_width]``."""
        return self.heads(self.k_proj(source)), self.heads(self.v_proj(source))

    def forward(
        self, hidden: Float[Tensor, "batch tokens width"], source: Tensor, mask: Tensor | None = None, is_causal: bool = False
    ) -> Float[Tensor, "batch tokens width"]:
        """``hidden`` attending to ``source``."""
        keys, values = self.keys_values(source)
        query = self.heads(self.q_proj(hidden))
        mixed = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask, is_causal=is_causal)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))

    def step(
        self, hidden: Float[Tensor, "batch tokens width"], keys: Tensor, values: Tensor, mask: Tensor | None
    ) -> Float[Tensor, "batch tokens width"]:
        """``hidden`` attending to keys and values that are there already."""
        mixed = F.scaled_dot_product_attention(self.heads(self.q_proj(hidden)), keys, values, attn_mask=mask)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    """Self attention and MLP, each with its norm after the addition."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        width = config.d_model
        self.self_attn = Attention(width, config.encoder_attention_heads)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, config.encoder_ffn_dim)
        self.fc2 = nn.Linear(config.encoder_ffn_dim, width)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, hidden: Float[Tensor, "batch tokens width"], mask: Tensor | None) -> Float[Tensor, "batch tokens width"]:
        """The same shape."""
        hidden = self.self_attn_layer_norm(hidden + self.self_attn(hidden, hidden, mask))
        return self.final_layer_norm(hidden + self.fc2(F.gelu(self.fc1(hidden))))


class DecoderLayer(nn.Module):
    """Causal self attention, cross attention and MLP, each with its norm after the addition."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        width = config.d_model
        self.self_attn = Attention(width, config.decoder_attention_heads)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.encoder_attn = Attention(width, config.decoder_attention_heads)
        self.encoder_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, config.decoder_ffn_dim)
        self.fc2 = nn.Linear(config.decoder_ffn_dim, width)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, hidden: Tensor, source: Tensor, source_mask: Tensor | None) -> Float[Tensor, "batch tokens width"]:
        """All positions at once, for training."""
        hidden = self.self_attn_layer_norm(hidden + self.self_attn(hidden, hidden, is_causal=True))
        hidden = self.encoder_attn_layer_norm(hidden + self.encoder_attn(hidden, source, source_mask))
        return self.final_layer_norm(hidden + self.fc2(F.gelu(self.fc1(hidden))))

    def step(self, hidden: Float[Tensor, "rows 1 width"], cache: DecoderCache, layer: LayerCache) -> Float[Tensor, "rows 1 width"]:
        """One new position for every row; the row's key and value are added to the cache."""
        keys, values = cache.extend(layer, *self.self_attn.keys_values(hidden))
        hidden = self.self_attn_layer_norm(hidden + self.self_attn.step(hidden, keys, values, cache.self_mask))
        by_request = cache.group_rows(hidden)
        attended = self.encoder_attn.step(by_request, layer.cross_keys, layer.cross_values, cache.cross_mask)
        hidden = self.encoder_attn_layer_norm(hidden + cache.ungroup_rows(attended))
        return self.final_layer_norm(hidden + self.fc2(F.gelu(self.fc1(hidden))))


class _Embedded(nn.Module):
    """What encoder and decoder have in common: positions and a norm on the embedded input."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.embed_positions = nn.Embedding(config.max_position_embeddings + POSITION_OFFSET, config.d_model)
        self.layernorm_embedding = nn.LayerNorm(config.d_model)

    def embed(self, embedded: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        """Positions 0, 1, 2, … added, then normalised."""
        positions = self.embed_positions.weight[POSITION_OFFSET : POSITION_OFFSET + embedded.shape[1]]
        return self.layernorm_embedding(embedded + positions)


class Encoder(_Embedded):
    """The text encoder, over image tokens followed by the prompt's."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))

    def forward(self, embedded: Float[Tensor, "prompts source width"], lengths: Sequence[int]) -> Float[Tensor, "prompts source width"]:
        """Hidden states of the embedded source; what stands behind a prompt's length is padding that nobody attends to."""
        mask = padding_mask(lengths, embedded.shape[1], embedded.device)
        hidden = self.embed(embedded)
        for layer in self.layers:
            hidden = layer(hidden, mask)
        return hidden


class Decoder(_Embedded):
    """The text decoder."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))

    def forward(self, embedded: Float[Tensor, "prompts tokens width"], encoded: EncodedPrompts) -> Float[Tensor, "prompts tokens width"]:
        """Hidden states of all positions, each seeing those before it."""
        mask = padding_mask(encoded.lengths, encoded.hidden.shape[1], embedded.device)
        hidden = self.embed(embedded)
        for layer in self.layers:
            hidden = layer(hidden, encoded.hidden, mask)
        return hidden

    def cross_keys_values(self, encoded: EncodedPrompts) -> list[tuple[Tensor, Tensor]]:
        """Each layer's keys and values of the encoded prompts, ``[prompts, heads, source, head_width]``."""
        return [layer.encoder_attn.keys_values(encoded.hidden) for layer in self.layers]  # type: ignore[union-attr]

    def step(self, embedded: Float[Tensor, "rows width"], cache: DecoderCache) -> Float[Tensor, "rows width"]:
        """Hidden states of one new position a row."""
        positions = self.embed_positions(cache.begin_step() + POSITION_OFFSET)
        hidden = self.layernorm_embedding(embedded + positions).unsqueeze(1)
        for layer, layer_cache in zip(self.layers, cache.layers, strict=True):
            hidden = layer.step(hidden, cache, layer_cache)  # type: ignore[operator]
        cache.end_step()
        return hidden.squeeze(1)


class Bart(nn.Module):
    """Encoder, decoder and the embedding table that both and the head share."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.scale = config.d_model**0.5 if config.scale_embedding else 1.0
        self.shared = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def embed_tokens(self, token_ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch width"]:
        """Rows of the shared table."""
        embedded = F.embedding(token_ids, self.shared.weight)
        return embedded * self.scale if self.scale != 1.0 else embedded

    def head(self, hidden: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch vocabulary"]:
        """Logits over the vocabulary."""
        return F.linear(hidden, self.shared.weight)
