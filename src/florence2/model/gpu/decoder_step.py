"""A decoder step of few rows on a GPU, by kernels that do as much as they can while weights are read (``kernels.py``).

In: a text model on a GPU, in any floating-point type, with the three projections of self attention in one layer. Out: logits in float32.
Between layers everything is float32, so that no logits need to be computed again. The counterpart in plain PyTorch is ``Decoder.step`` of
the embedded tokens, followed by the head; within rounding it gives the same.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from florence2.model.adapters import Routes, Routing
from florence2.model.bart import POSITION_OFFSET
from florence2.model.cache import Step
from florence2.model.decoder_step import StepLayer
from florence2.model.linear import Linear

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    from florence2.model.bart import Bart

MOST_ROWS = 8  # with more, matrix products of PyTorch's are faster
PROGRAMS = 128  # that a product is divided among at least, about as many as a large GPU has multiprocessors
TILE = 16_384  # weights that a program holds at a time
KEYS = 128  # of a head of self attention that a program holds at a time
PART = 64  # keys of a head of cross attention that a program reads
CHUNK = 1024  # logits that a program ranks


class FusedStep:
    """The steps of one model.

    Args:
        text: its text model.
        num_heads: heads of every attention.
        routing: as the model's.

    Attributes:
        key_dtype: the type for keys and values.
    """

    def __init__(self, text: Bart, num_heads: int, routing: Routing) -> None:
        from florence2.model.gpu import kernels  # brings Triton, which not every PyTorch has

        self.key_dtype = text.decoder.layernorm_embedding.weight.dtype
        # Held from the first: once there are adapters, other modules stand in their places.
        self._layers: list[StepLayer[Linear]] = [StepLayer.of(layer) for layer in text.decoder.layers]  # type: ignore[arg-type]
        self._kernels: Any = kernels
        self._text, self._heads, self._routing = text, num_heads, routing
        self._forced: dict[tuple[int, ...], Tensor] = {}  # held, for recordings of steps read them
        self._head_width = text.shared.weight.shape[1] // num_heads

    def can_take(self, step: Step) -> bool:
        """Whether it computes a step: of few rows, without adapters or gradients."""
        return step.size.rows <= MOST_ROWS and not self._routing.routes and not torch.is_grad_enabled()

    def __call__(self, token_ids: Int[Tensor, " rows"], step: Step, routes: Routes = ()) -> Float[Tensor, "rows vocabulary"]:
        """The logits of a step, whose keys and values are added to the cache; there may be no routes."""
        with _on_device_of(token_ids):
            return self._logits(token_ids, step)

    def _logits(self, token_ids: Tensor, step: Step) -> Tensor:
        text, rows = self._text, len(token_ids)
        width = text.shared.weight.shape[1]
        sums = torch.empty(rows, width, dtype=torch.float32, device=token_ids.device)
        position_table = text.decoder.embed_positions.weight[POSITION_OFFSET:]
        self._kernels.embed[(rows,)](
            token_ids, step.positions, text.decoder_table, position_table, sums, text.scale, width, BLOCK=_power_of_two(width)
        )
        norm = text.decoder.layernorm_embedding
        for number, layer in enumerate(self._layers):
            sums, norm = self._layer(layer, sums, norm, step, number)
        return self._project(text.head_weight, None, sums, norm=norm)  # type: ignore[arg-type]

    def rank(self, logits: Float[Tensor, "rows vocabulary"], count: int, forced: tuple[int, ...]) -> Int[Tensor, "rows ranked"]:
        """What ``florence2.engine.next_tokens.rank`` gives, in two kernels; of any number of rows."""
        (rows, vocabulary), chunks = logits.shape, -(-logits.shape[1] // CHUNK)
        if forced not in self._forced:
            self._forced[forced] = torch.tensor(forced, dtype=torch.int32, device=logits.device)
        of_forced = self._forced[forced]
        best, sums = logits.new_empty(rows, chunks, count), logits.new_empty(rows, chunks)
        tokens, largest = torch.empty_like(best, dtype=torch.int32), torch.empty_like(sums)
        out = tokens.new_empty(rows, 2 * count + len(forced))
        with _on_device_of(logits):
            self._kernels.rank_chunk[(rows, chunks)](logits, best, tokens, largest, sums, vocabulary, chunks, COUNT=count, CHUNK=CHUNK)
            self._kernels.rank_row[(rows,)](
                *(logits, best, tokens, largest, sums, of_forced, out, vocabulary, chunks, len(forced)),
                COUNT=count,
                CHUNKS=_power_of_two(chunks),
                CANDIDATES=_power_of_two(chunks * count),
            )
        return out

    def _layer(self, layer: StepLayer[Linear], sums: Tensor, norm: nn.LayerNorm, step: Step, number: int) -> tuple[Tensor, nn.LayerNorm]:
        """What a layer makes of rows, and the norm that is still to come: so are the rows given, too."""
        mixed = self._attend_to_own(self._linear(layer.qkv, sums, norm=norm), step, number)
        sums, norm = self._linear(layer.out, mixed, residual=(sums, norm)), layer.self_norm
        mixed = self._attend_to_prompt(self._linear(layer.cross_query, sums, norm=norm), step, number)
        sums, norm = self._linear(layer.cross_out, mixed, residual=(sums, norm)), layer.cross_norm
        inner = self._linear(layer.fc1, sums, norm=norm, gelu=True)
        return self._linear(layer.fc2, inner, residual=(sums, norm)), layer.norm

    def _linear(self, layer: Linear, given: Tensor, **named: Any) -> Tensor:
        return self._project(layer.weight, layer.bias, given, **named)

    def _project(
        self,
        weight: Tensor,
        bias: Tensor | None,
        given: Tensor,
        *,
        norm: nn.LayerNorm | None = None,
        gelu: bool = False,
        residual: tuple[Tensor, nn.LayerNorm] | None = None,
    ) -> Float[Tensor, "rows outputs"]:
        rows, (outputs, width) = len(given), weight.shape
        out = torch.empty(rows, outputs, dtype=torch.float32, device=given.device)
        block_in = _power_of_two(width)
        block_out = max(1, min(_power_of_two(outputs // PROGRAMS + 1) // 2, TILE // block_in))
        other, other_norm = residual or (given, None)
        some = norm or other_norm
        assert some is not None  # every product of a step has one before it, or adds to one
        # Where there is no norm or bias, any tensor stands for it: it isn't read.
        self._kernels.project[(-(-outputs // block_out),)](
            *(given, some.weight, some.bias, weight, weight if bias is None else bias, other, some.weight, some.bias, out),
            *(rows, width, outputs, some.eps),
            BLOCK_IN=block_in,
            BLOCK_OUT=block_out,
            BLOCK_RESIDUAL=_power_of_two(outputs) if residual else 1,
            HAS_NORM=norm is not None,
            HAS_BIAS=bias is not None,
            HAS_GELU=gelu,
            HAS_RESIDUAL=residual is not None,
            num_warps=8 if block_in * block_out > TILE // 2 else 4,
        )
        return out

    def _attend_to_own(self, projected: Tensor, step: Step, number: int) -> Float[Tensor, "rows width"]:
        keys, values = step.self_kv[number].unbind()
        rows, heads = len(projected), self._heads
        out = projected.new_empty(rows, heads * self._head_width)
        self._kernels.attend_to_own[(rows, heads)](
            *(projected, keys, values, step.positions, out, heads, keys.stride(0), keys.stride(1), self._head_width**-0.5),
            WIDTH=self._head_width,
            BLOCK=KEYS,
        )
        return out

    def _attend_to_prompt(self, query: Tensor, step: Step, number: int) -> Float[Tensor, "rows width"]:
        keys, values = step.cross(number)
        order = step.permutation
        rows, num_parts = len(query), -(-step.size.source // PART)
        parts, numbers = query.new_empty(rows, self._heads, num_parts, self._head_width), query.new_empty(rows, self._heads, num_parts, 2)
        self._kernels.attend_to_prompt[(rows, self._heads, num_parts)](
            *(query, keys, values, step.cross_key_lengths.lengths, step.positions if order is None else order.query_of_row),
            *(parts, numbers, self._heads, step.size.beams, keys.stride(0), keys.stride(1), self._head_width**-0.5),
            IN_ORDER=order is None,
            WIDTH=self._head_width,
            BLOCK=PART,
        )
        out = torch.empty_like(query)
        self._kernels.join_parts[(rows, self._heads)](
            *(parts, numbers, out, self._heads, num_parts), WIDTH=self._head_width, PARTS=_power_of_two(num_parts), num_warps=1
        )
        return out


def _on_device_of(tensor: Tensor) -> AbstractContextManager[object]:
    """Triton starts kernels on the current device, whatever device their tensors are on."""
    return torch.cuda.device(tensor.device) if tensor.device.type == "cuda" else nullcontext()


def _power_of_two(number: int) -> int:
    """The smallest one that is at least ``number``."""
    return 1 << max(number - 1, 0).bit_length()
