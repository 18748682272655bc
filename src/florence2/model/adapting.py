"""A model's layers made ready for adapters, and an adapter made ready for a model.

In: a model, and an adapter's factors by our names of the layers. Out: the same model, whose linear layers look for adapters, and a
``ModelAdapter`` for its layers, packed or not. Knows the model's modules; nothing of files, prompts or requests.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from florence2.model.adapters import AdaptedLinear, HeadUpdates, LowRankUpdate, ModelAdapter
from florence2.model.florence2 import Florence2
from florence2.model.linear import Linear, LinearLayer
from florence2.model.refined_head import RefinedHead

HEAD_NAME = "lm_head"
_HEAD_PATHS = ("language_model.packed_head", f"language_model.{HEAD_NAME}")


def adapt_layers(model: Florence2) -> None:
    """Have every linear layer of ``model`` look for adapters; nothing happens the second time.

    A pass may be under way in another thread: before and after the change, a layer computes the same.
    """
    adapted = {name for name, module in model.named_modules() if isinstance(module, AdaptedLinear)}
    for name, module in list(model.named_modules()):
        inside = name in adapted or any(name.startswith(f"{path}.") for path in adapted)
        if inside or name.startswith(_HEAD_PATHS) or not isinstance(module, LinearLayer):
            continue
        parent, _, own_name = name.rpartition(".")
        setattr(model.get_submodule(parent), own_name, AdaptedLinear(module, name, model.routing))
    _adapt_head(model)


def _adapt_head(model: Florence2) -> None:
    text = model.language_model
    head, table = text.packed_head, text.head_weight
    if isinstance(head, RefinedHead):
        head.added = head.added or HeadUpdates(HEAD_NAME, len(table), model.routing)
    elif not isinstance(head, AdaptedLinear):
        if head is None:
            head = Linear(table.shape[1], table.shape[0], bias=False, device="meta")
            head.weight = table  # type: ignore[assignment]
        text.packed_head = AdaptedLinear(head, HEAD_NAME, model.routing)


def fit_adapter(model: Florence2, factors: Mapping[str, LowRankUpdate]) -> ModelAdapter:
    """The adapter for the layers of a model, whose self attention may have one packed layer for queries, keys and values.

    Args:
        model: the model.
        factors: in float32 by our names of the layers, which all are in the model, with shapes that fit.
    """
    updates: dict[str, LowRankUpdate] = {}
    packed: dict[str, dict[str, LowRankUpdate]] = {}
    for name, update in factors.items():
        parent, _, own_name = name.rpartition(".")
        part = own_name.removesuffix("_proj")
        if part in ("q", "k", "v") and model.get_submodule(parent).qkv_proj is not None:
            packed.setdefault(f"{parent}.qkv_proj", {})[part] = update
        else:
            updates[name] = update
    updates.update({name: _side_by_side(parts, model.config.text.d_model) for name, parts in packed.items()})
    changes_images = any(not _is_text(name) for name in updates)
    return ModelAdapter({name: _moved(model, name, update) for name, update in updates.items()}, changes_images)


def _is_text(name: str) -> bool:
    return name == HEAD_NAME or name.startswith("language_model.")


def _side_by_side(parts: Mapping[str, LowRankUpdate], width: int) -> LowRankUpdate:
    """One update for queries, keys and values, each ``width`` outputs, of which some may have none."""
    up = torch.zeros(sum(len(part.down) for part in parts.values()), 3 * width)
    row = 0
    for index, part in enumerate("qkv"):
        if part in parts:
            rank = len(parts[part].down)
            up[row : row + rank, index * width : (index + 1) * width] = parts[part].up
            row += rank
    return LowRankUpdate(torch.cat([parts[part].down for part in "qkv" if part in parts]), up)


def _moved(model: Florence2, name: str, update: LowRankUpdate) -> LowRankUpdate:
    """The update in the type of its layer's input, on the model's device."""
    is_refined = name == HEAD_NAME and isinstance(model.language_model.packed_head, RefinedHead)
    dtype = torch.float32 if is_refined else model.dtype if _is_text(name) else model.tower_dtype
    return LowRankUpdate(*(_kept(factor, dtype, model.device) for factor in update))


def _kept(factor: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    return factor.detach().to(device, dtype).contiguous()
