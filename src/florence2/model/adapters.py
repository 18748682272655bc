"""LoRA adapters beside a model's weights: each entry of a batch gets what its own adapter adds to the linear layers.

In: the low-rank updates of an adapter by the names of the layers, and for each pass the entries that go through an adapter (prompts or
rows: the first dimension of a layer's input). Out: the layers' output. A pass without adapters is computed as if there were none. Knows
nothing of files, names or requests.
Source: LoRA (arXiv 2106.09685).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from florence2.model.linear import added

if TYPE_CHECKING:
    from jaxtyping import Float


class LowRankUpdate(NamedTuple):
    """What is added to a layer's weight: ``(up.T @ down)``, the scale included. ``up`` lies as products of few rows need it."""

    down: Float[Tensor, "rank inputs"]
    up: Float[Tensor, "rank outputs"]


@dataclass(frozen=True, eq=False)
class ModelAdapter:
    """An adapter in the types and on the device of its model.

    Attributes:
        updates: by the names of the model's layers.
        changes_images: some of the layers belong to the tower or the projector, so that images have other tokens than the base gives them.
    """

    updates: Mapping[str, LowRankUpdate]
    changes_images: bool

    @property
    def num_bytes(self) -> int:
        """Its size in memory."""
        return sum(factor.nbytes for update in self.updates.values() for factor in update)


class Route(NamedTuple):
    """The entries of a pass that go through an adapter: a range, or their indices."""

    adapter: ModelAdapter
    entries: slice | Tensor


Routes = tuple[Route, ...]

ALL = slice(None)


def routes_of(adapters: Sequence[ModelAdapter | None], device: torch.device) -> Routes:
    """The routes of a pass.

    Args:
        adapters: the adapter of each entry; None for those of the base.
        device: where the pass is computed.
    """
    indices: dict[ModelAdapter, list[int]] = {}
    for index, adapter in enumerate(adapters):
        if adapter is not None:
            indices.setdefault(adapter, []).append(index)
    return tuple(Route(adapter, _as_range(found) or torch.tensor(found, device=device)) for adapter, found in indices.items())


def _as_range(indices: Sequence[int]) -> slice | None:
    """The range that the ascending indices are, if they are one: no entry is copied then."""
    first, stop = indices[0], indices[-1] + 1
    return slice(first, stop) if stop - first == len(indices) else None


class Routing:
    """The routes of the pass under way, which a model's layers look up. Only the thread that computes passes may set them.

    Attributes:
        routes: none where every entry is of the base.
    """

    def __init__(self) -> None:
        self.routes: Routes = ()

    @contextmanager
    def over(self, routes: Routes) -> Iterator[None]:
        """Take these routes for as long as the context lasts."""
        self.routes = routes
        try:
            yield
        finally:
            self.routes = ()


class AdaptedLinear(nn.Module):
    """A linear layer of any kind, with what adapters add to it.

    Args:
        layer: a ``Linear``, or a packed or quantized layer in its place.
        name: its name in the model.
        routing: of the whole model.
    """

    def __init__(self, layer: nn.Module, name: str, routing: Routing) -> None:
        super().__init__()
        self.layer = layer
        self.name = name
        self._routing = routing

    def forward(
        self,
        hidden: Any,
        *,
        norm: nn.LayerNorm | None = None,
        gelu: bool = False,
        add_to: Tensor | None = None,
        into: nn.Module | None = None,
    ) -> Any:
        """The output of ``Linear.forward``, in floating point wherever an adapter takes part in the pass."""
        routes = self._routing.routes
        if not any(self.name in route.adapter.updates for route in routes):
            reader = None if routes else into.layer if isinstance(into, AdaptedLinear) else into
            return self.layer(hidden, norm=norm, gelu=gelu, add_to=add_to, into=reader)
        hidden = hidden if norm is None else norm(hidden)
        out = self.layer(hidden)
        for adapter, entries in routes:
            if self.name in adapter.updates:
                add_update(out, hidden, adapter.updates[self.name], entries)
        return added(F.gelu(out) if gelu else out, add_to)


class HeadUpdates:
    """What adapters add to the logits of a head that computes some of them twice.

    Args:
        name: the head's name in the model.
        vocabulary: the number of logits.
        routing: of the whole model.
    """

    def __init__(self, name: str, vocabulary: int, routing: Routing) -> None:
        self._name = name
        self._vocabulary = vocabulary
        self._routing = routing

    def __call__(self, hidden: Float[Tensor, "rows width"]) -> Float[Tensor, "rows vocabulary"] | None:
        """What is added to all logits, in float32; None where nothing is."""
        routes = [route for route in self._routing.routes if self._name in route.adapter.updates]
        if not routes:
            return None
        hidden = hidden.float()
        added = hidden.new_zeros(len(hidden), self._vocabulary)
        for adapter, entries in routes:
            add_update(added, hidden, adapter.updates[self._name], entries)
        return added


def add_update(
    out: Float[Tensor, "*batch outputs"], hidden: Float[Tensor, "*batch inputs"], update: LowRankUpdate, entries: slice | Tensor
) -> None:
    """Add to some entries of a layer's output, in place, what an update makes of its input."""
    down, up = update
    if isinstance(entries, Tensor):
        out.index_add_(0, entries, F.linear(hidden[entries], down) @ up)
    else:
        inner = F.linear(hidden[entries].reshape(-1, hidden.shape[-1]), down)
        out[entries].view(-1, out.shape[-1]).addmm_(inner, up)
