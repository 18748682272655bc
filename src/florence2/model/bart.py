"""BART, the text model: an encoder over image tokens and prompt, a decoder with a key/value cache.

Post-norm layers, GELU, learned positions with BART's offset of 2, one embedding table shared by encoder, decoder and head.
The caller holds the cache, whose rows (one per beam) are grouped by request. Keys and values of cross attention are stored once
per request, and its beams attend to them together. Linear layers may be replaced by packed ones
(``florence2.model.cpu.packed``).

Source: BART (arXiv 1910.13461) as the reference implementation builds it for Florence-2. Knows nothing of search or tasks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from florence2.model.attention import KeyLengths, attend
from florence2.model.cache import Step
from florence2.model.config import TextConfig
from florence2.model.decoder_step import DecoderStep
from florence2.model.linear import Linear

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from florence2.model.gpu.decoder_step import FusedStep

POSITION_OFFSET = 2


@dataclass(frozen=True)
class EncodedPrompts:
    """The encoder's output: what the decoder attends to.

    ``hidden`` is ``[prompts, source, width]``, padded on the right; ``lengths`` counts the valid positions of each.
    """

    hidden: Float[Tensor, "prompts source width"]
    lengths: tuple[int, ...]


class Attention(nn.Module):
    """Multi-head attention with separate projections.

    In a packed model, and after ``fuse``, ``qkv_proj`` of self attention replaces the three input projections by one layer.
    """

    qkv_proj: nn.Module | None

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = Linear(width, width)
        self.k_proj = Linear(width, width)
        self.v_proj = Linear(width, width)
        self.out_proj = Linear(width, width)
        self.qkv_proj = None

    def fuse(self) -> None:
        """Make one layer of the three input projections, which takes one operation in place of three. It can't be undone."""
        parts = (self.q_proj, self.k_proj, self.v_proj)
        fused = Linear(self.q_proj.in_features, 3 * self.q_proj.out_features, device="meta")
        fused.weight, fused.bias = (
            nn.Parameter(torch.cat([getattr(part, kind).detach() for part in parts]), requires_grad=False) for kind in ("weight", "bias")
        )
        self.qkv_proj = fused
        del self.q_proj, self.k_proj, self.v_proj

    def heads(self, projected: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch heads tokens head_width"]:
        """The projected tokens, split into heads."""
        return projected.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def queries_keys_values(self, hidden: Float[Tensor, "batch tokens width"]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of self attention, each ``[batch, heads, tokens, head_width]``."""
        if self.qkv_proj is not None:
            query, keys, values = self.qkv_proj(hidden).chunk(3, dim=-1)
            return self.heads(query), self.heads(keys), self.heads(values)
        return self.heads(self.q_proj(hidden)), *self.keys_values(hidden)

    def keys_values(self, source: Float[Tensor, "batch tokens width"]) -> tuple[Tensor, Tensor]:
        """Keys and values of ``source``, each ``[batch, heads, tokens, head_width]``."""
        return self.heads(self.k_proj(source)), self.heads(self.v_proj(source))


class MLP(nn.Module):
    """The second half of encoder and decoder layers: two linear layers with GELU between them, a residual, and a norm."""

    fc1: Linear
    fc2: Linear
    final_layer_norm: nn.LayerNorm

    def mlp(self, hidden: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        """Hidden states of the same shape; each position is computed independently."""
        return self.final_layer_norm(self.fc2(self.fc1(hidden, gelu=True, into=self.fc2), add_to=hidden))


class EncoderLayer(MLP):
    """Self attention and MLP, each followed by residual and norm."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        width = config.d_model
        self.self_attn = Attention(width, config.encoder_attention_heads)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = Linear(width, config.encoder_ffn_dim)
        self.fc2 = Linear(config.encoder_ffn_dim, width)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, hidden: Float[Tensor, "batch tokens width"], key_lengths: KeyLengths) -> Float[Tensor, "batch tokens width"]:
        """Hidden states of the same shape."""
        attention = self.self_attn
        mixed = attend(*attention.queries_keys_values(hidden), key_lengths)
        return self.mlp(self.self_attn_layer_norm(attention.out_proj(mixed, add_to=hidden)))


class DecoderLayer(MLP):
    """Causal self attention, cross attention and MLP, each followed by residual and norm."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        width = config.d_model
        self.self_attn = Attention(width, config.decoder_attention_heads)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.encoder_attn = Attention(width, config.decoder_attention_heads)
        self.encoder_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = Linear(width, config.decoder_ffn_dim)
        self.fc2 = Linear(config.decoder_ffn_dim, width)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, hidden: Tensor, source: Tensor, key_lengths: KeyLengths) -> Float[Tensor, "batch tokens width"]:
        """Hidden states of all positions at once, for training."""
        attention, cross = self.self_attn, self.encoder_attn
        mixed = attend(*attention.queries_keys_values(hidden), is_causal=True)
        hidden = self.self_attn_layer_norm(attention.out_proj(mixed, add_to=hidden))
        mixed = attend(cross.heads(cross.q_proj(hidden)), *cross.keys_values(source), key_lengths)
        return self.mlp(self.encoder_attn_layer_norm(cross.out_proj(mixed, add_to=hidden)))

    def step(self, hidden: Float[Tensor, "rows 1 width"], step: Step, layer: int) -> Float[Tensor, "rows 1 width"]:
        """Hidden states of one new position per row; its keys and values are added to the cache."""
        attention, cross = self.self_attn, self.encoder_attn
        query, keys, values = attention.queries_keys_values(hidden)
        mixed = attend(query, *step.extend(layer, keys, values), step.key_lengths)
        hidden = self.self_attn_layer_norm(attention.out_proj(mixed, add_to=hidden))
        query = cross.heads(step.group_rows(cross.q_proj(hidden)))
        mixed = step.ungroup_rows(attend(query, *step.cross(layer), step.cross_key_lengths))
        return self.mlp(self.encoder_attn_layer_norm(cross.out_proj(mixed, add_to=hidden)))


class _Embedded(nn.Module):
    """Common base of encoder and decoder: position embeddings and a norm on the embedded input."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.embed_positions = nn.Embedding(config.max_position_embeddings + POSITION_OFFSET, config.d_model)
        self.layernorm_embedding = nn.LayerNorm(config.d_model)

    def embed(self, embedded: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        """The input with the embeddings of positions 0, 1, 2, … added, then normalised."""
        positions = self.embed_positions.weight[POSITION_OFFSET : POSITION_OFFSET + embedded.shape[1]]
        return self.layernorm_embedding(embedded + positions)


class Encoder(_Embedded):
    """The text encoder, over image tokens followed by prompt tokens."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))

    def forward(self, embedded: Float[Tensor, "prompts source width"], lengths: Sequence[int]) -> Float[Tensor, "prompts source width"]:
        """Hidden states of the embedded source; positions from a prompt's length on are padding, which is masked."""
        key_lengths = KeyLengths.of(lengths, embedded.shape[1], embedded.device)
        hidden = self.embed(embedded)
        for layer in self.layers:
            hidden = layer(hidden, key_lengths)
        return hidden


class Decoder(_Embedded):
    """The text decoder."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__(config)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))

    def forward(self, embedded: Float[Tensor, "prompts tokens width"], encoded: EncodedPrompts) -> Float[Tensor, "prompts tokens width"]:
        """Hidden states of all positions; each attends to itself and those before it."""
        key_lengths = KeyLengths.of(encoded.lengths, encoded.hidden.shape[1], embedded.device)
        hidden = self.embed(embedded)
        for layer in self.layers:
            hidden = layer(hidden, encoded.hidden, key_lengths)
        return hidden

    def cross_keys_values(self, encoded: EncodedPrompts) -> Iterator[tuple[Tensor, Tensor]]:
        """Keys and values of the encoded prompts, one pair per layer, each ``[prompts, heads, source, head_width]``."""
        return (layer.encoder_attn.keys_values(encoded.hidden) for layer in self.layers)  # type: ignore[union-attr]

    def step(self, embedded: Float[Tensor, "rows width"], step: Step) -> Float[Tensor, "rows width"]:
        """Hidden states of one new position per row."""
        positions = self.embed_positions(step.positions + POSITION_OFFSET)
        hidden = self.layernorm_embedding(embedded + positions).unsqueeze(1)
        for number, layer in enumerate(self.layers):
            hidden = layer.step(hidden, step, number)  # type: ignore[operator]
        return hidden.squeeze(1)


class Bart(nn.Module):
    """Encoder, decoder and the embedding table that both and the head share.

    If ``packed_head`` is set, it computes the logits instead of the table. If ``compiled_step`` is set, it computes those decoder steps
    that it can take, from tokens to logits.
    """

    packed_head: nn.Module | None
    compiled_step: DecoderStep | FusedStep | None

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.scale = config.d_model**0.5 if config.scale_embedding else 1.0
        self.shared = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.packed_head = None
        self.compiled_step = None

    def fuse_projections(self) -> None:
        """Make one layer of the three input projections of each self attention."""
        for layer in (*self.encoder.layers, *self.decoder.layers):
            layer.self_attn.fuse()  # type: ignore[union-attr, operator]

    @property
    def head_weight(self) -> Float[Tensor, "vocabulary width"]:
        """The weights of the head."""
        return self.shared.weight

    @property
    def decoder_table(self) -> Float[Tensor, "vocabulary width"]:
        """The embedding table of the decoder's input."""
        return self.shared.weight

    def embed_tokens(self, token_ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch width"]:
        """Embeddings of prompt tokens."""
        return self._embed(token_ids, self.shared.weight)

    def embed_decoder_tokens(self, token_ids: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch width"]:
        """Embeddings of generated tokens."""
        return self._embed(token_ids, self.decoder_table)

    def _embed(self, token_ids: Tensor, table: Tensor) -> Tensor:
        # A table that is mapped from its file keeps the file's type.
        embedded = F.embedding(token_ids, table).to(self.decoder.layernorm_embedding.weight.dtype)
        return embedded * self.scale if self.scale != 1.0 else embedded

    def head(self, hidden: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch vocabulary"]:
        """Logits over the vocabulary."""
        return F.linear(hidden, self.head_weight) if self.packed_head is None else self.packed_head(hidden)
