"""A step of the decoder in one call of compiled code (``decoder_step.cpp``), instead of some hundred operators.

In: a decoder's layers, which are all ``PanelLinear``, and for each step its tokens, the view of the cache and the adapters that rows go
through. Out: logits. The counterpart in plain PyTorch is ``Decoder.step`` of the embedded tokens, followed by the head; within rounding it
gives the same.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from florence2.model.adapters import ModelAdapter, Routes
from florence2.model.cache import Step
from florence2.model.cpu.panels import PANEL, LinearStruct, PanelLinear
from florence2.model.cpu.routines import Kernels

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from florence2.model.bart import DecoderLayer

Product = TypeVar("Product", bound=nn.Module)
CACHE_TYPES = (torch.float32, torch.bfloat16)
STORED_TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}  # by their numbers in stored.h
# The products of a layer in the order of a step, as adapters name them.
PRODUCTS = ("self_attn.qkv_proj", "self_attn.out_proj", "encoder_attn.q_proj", "encoder_attn.out_proj", "fc1", "fc2")


@dataclass(frozen=True)
class StepEmbedding:
    """What makes vectors of tokens.

    Attributes:
        table: of the tokens, in any floating-point type.
        positions: of the positions from 0 on.
        scale: what the tokens' vectors are multiplied by.
    """

    table: Float[Tensor, "vocabulary width"]
    positions: Float[Tensor, "positions width"]
    scale: float = 1.0


@dataclass(frozen=True)
class StepLayer(Generic[Product]):
    """The layers of one decoder layer: those of self attention, cross attention and MLP, each with the norm behind it."""

    qkv: Product
    out: Product
    self_norm: nn.LayerNorm
    cross_query: Product
    cross_out: Product
    cross_norm: nn.LayerNorm
    fc1: Product
    fc2: Product
    norm: nn.LayerNorm

    @classmethod
    def of(cls, layer: DecoderLayer) -> StepLayer[Any]:
        """Those of a layer whose self attention has one projection for queries, keys and values."""
        attention, cross = layer.self_attn, layer.encoder_attn
        return StepLayer(
            *(attention.qkv_proj, attention.out_proj, layer.self_attn_layer_norm),
            *(cross.q_proj, cross.out_proj, layer.encoder_attn_layer_norm),
            *(layer.fc1, layer.fc2, layer.final_layer_norm),
        )


class _Norm(ctypes.Structure):
    _fields_ = (("weight", ctypes.c_void_p), ("bias", ctypes.c_void_p), ("epsilon", ctypes.c_float))


class _Layer(ctypes.Structure):
    _fields_ = tuple(
        (name, _Norm if name.endswith("norm") else LinearStruct)
        for name in ("qkv", "out", "self_norm", "cross_query", "cross_out", "cross_norm", "fc1", "fc2", "norm")
    )


class _Embedding(ctypes.Structure):
    _fields_ = (("table", ctypes.c_void_p), ("positions", ctypes.c_void_p), ("scale", ctypes.c_float), ("type", ctypes.c_int32))


class _Table(ctypes.Structure):
    _fields_ = (("weights", ctypes.c_void_p), ("count", ctypes.c_int64), ("type", ctypes.c_int32))


class _Update(ctypes.Structure):
    _fields_ = (("down", ctypes.c_void_p), ("up", ctypes.c_void_p), ("rank", ctypes.c_int64), ("type", ctypes.c_int32))


class _Decoder(ctypes.Structure):
    _fields_ = (
        ("layers", ctypes.POINTER(_Layer)),
        *((name, ctypes.c_int64) for name in ("num_layers", "width", "heads", "inner")),
        ("embedding", _Embedding),
        ("embedding_norm", _Norm),
        ("head", LinearStruct),
        ("table", _Table),
    )


class _Step(ctypes.Structure):
    _fields_ = (
        *(
            (name, ctypes.c_void_p)
            for name in (
                *("tokens", "positions", "hidden", "logits", "memory"),
                *("self_kv", "cross_kv", "lengths", "cross_lengths", "groups"),
            )
        ),
        *((name, ctypes.c_int64) for name in ("rows", "slots", "own_size", "self_layer", "self_kind", "self_row", "self_position")),
        *((name, ctypes.c_int64) for name in ("cross_layer", "cross_kind", "cross_slot", "cross_head", "cross_position")),
        *(("updates", ctypes.c_void_p), ("most_rank", ctypes.c_int64)),
        *((name, ctypes.c_int32) for name in ("key_is_bf16", "threads")),
    )


class DecoderStep:
    """The steps of one model.

    Args:
        kernels: what computes.
        layers: from the first to the last; there may be none.
        embedding: what the tokens become first.
        embedding_norm: the norm of the embedded tokens.
        head: the output head.
        num_heads: heads of every attention.
        table: the head's weights, ``[vocabulary, width]``, where the largest logits are to be computed again from them; else None.
        refined: how many of each row.
        names: of all products, in their order and at last the head's, as adapters name them; none where there are no adapters.

    Attributes:
        key_dtype: the type for keys and values: float32 where weights have it, else bfloat16, which is read in half the time.
    """

    def __init__(
        self,
        kernels: Kernels,
        layers: Sequence[StepLayer[PanelLinear]],
        embedding: StepEmbedding,
        embedding_norm: nn.LayerNorm,
        head: PanelLinear,
        num_heads: int,
        table: Float[Tensor, "vocabulary width"] | None,
        refined: int,
        names: Sequence[str] = (),
    ) -> None:
        self._kernels = kernels
        self._names = names
        self._updates: WeakKeyDictionary[ModelAdapter, ctypes.Array[_Update]] = WeakKeyDictionary()
        self.key_dtype = torch.float32 if table is None else torch.bfloat16
        self._held: list[object] = [layers, head]  # what the pointers point to
        structs = (_Layer * len(layers))(*(_Layer(*(self._struct(part) for part in vars(layer).values())) for layer in layers))
        self._decoder = _Decoder(
            *(structs, len(layers), head.inputs, num_heads, max((layer.fc1.outputs for layer in layers), default=0)),
            *(self._embedding(embedding), self._struct(embedding_norm), head.struct, self._table(table, min(refined, head.outputs))),
        )

    def _struct(self, part: PanelLinear | nn.LayerNorm) -> LinearStruct | _Norm:
        if isinstance(part, PanelLinear):
            return part.struct
        weight, bias = (values.detach().float().contiguous() for values in (part.weight, part.bias))
        self._held += [weight, bias]
        return _Norm(weight.data_ptr(), bias.data_ptr(), part.eps)

    def _embedding(self, embedding: StepEmbedding) -> _Embedding:
        table, positions = self._stored(embedding.table), embedding.positions.detach().float().contiguous()
        self._held.append(positions)
        return _Embedding(table.data_ptr(), positions.data_ptr(), embedding.scale, STORED_TYPES[table.dtype])

    def _table(self, table: Tensor | None, count: int) -> _Table:
        if table is None:
            return _Table(None, 0, 0)
        values = self._stored(table)
        return _Table(values.data_ptr(), count, STORED_TYPES[values.dtype])

    def _stored(self, table: Tensor) -> Tensor:
        """A table in its own type, if the kernels know it."""
        values = (table.detach() if table.dtype in STORED_TYPES else table.detach().float()).contiguous()
        self._held.append(values)
        return values

    @staticmethod
    def can_take(step: Step) -> bool:
        """Whether there is a routine for a step: on a CPU, of the size that the running requests need, without gradients."""
        return step.row_groups is not None and step.self_kv.dtype in CACHE_TYPES and not torch.is_grad_enabled()

    def _updates_of(self, adapter: ModelAdapter) -> ctypes.Array[_Update]:
        """What an adapter adds to each product; it points to the adapter's own memory."""
        if adapter not in self._updates:
            found = [adapter.updates.get(name) for name in self._names]
            updates = (
                _Update(update.down.data_ptr(), update.up.data_ptr(), len(update.down), STORED_TYPES[update.down.dtype])
                if update
                else _Update(None, None, 0, 0)
                for update in found
            )
            self._updates[adapter] = (_Update * len(found))(*updates)
        return self._updates[adapter]

    def _routed(self, routes: Routes, rows: int) -> tuple[ctypes.Array[ctypes.c_void_p] | None, int]:
        """Where each row's updates are, and the largest rank of them all; None and 0 where there are none."""
        if not routes:
            return None, 0
        addresses, rank = (ctypes.c_void_p * rows)(), 0
        for adapter, entries in routes:
            updates = self._updates_of(adapter)
            for row in range(rows)[entries] if isinstance(entries, slice) else entries.tolist():
                addresses[row] = ctypes.addressof(updates)
            rank = max(rank, *(update.rank for update in updates))
        return addresses, rank

    def __call__(self, token_ids: Int[Tensor, " rows"], step: Step, routes: Routes = ()) -> Float[Tensor, "rows vocabulary"]:
        """Logits in float32; the new keys and values are added to the cache.

        Args:
            token_ids: of each row; not checked.
            step: one that ``can_take`` is true of.
            routes: which rows go through which adapters, of this decoder.
        """
        rows, groups = len(token_ids), step.row_groups
        if groups is None:
            raise ValueError("there is no routine for a step that is larger than what the requests need")
        hidden, logits = torch.empty(rows, self._decoder.width), torch.empty(rows, self._decoder.head.outputs)
        width, inner, threads = self._decoder.width, self._decoder.inner, torch.get_num_threads()
        own_size = max(PANEL * width, PANEL * inner, step.size.length, step.size.source * step.size.beams)
        updates, rank = self._routed(routes, rows)
        memory = torch.empty(rows * (6 * width + 2 * inner + 1 + rank) + threads * own_size)
        given = (token_ids.long().contiguous(), step.positions)
        inputs = (step.self_kv, step.cross_kv, step.key_lengths.lengths, step.cross_key_lengths.lengths, groups)
        called = _Step(
            *(values.data_ptr() for values in (*given, hidden, logits, memory, *inputs)),
            *(rows, len(groups), own_size, *step.self_kv.stride()[:4], *step.cross_kv.stride()[:5]),
            *(updates and ctypes.addressof(updates), rank),
            *(step.self_kv.dtype == torch.bfloat16, threads),
        )
        self._kernels.library.florence2_decoder_step(ctypes.byref(self._decoder), ctypes.byref(called))
        return logits
