"""How much memory a model takes, counted from its tensors. Knows nothing of what a model computes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn


def stored_bytes(modules: Iterable[nn.Module]) -> int:
    """The memory of all tensors of these modules, each storage once, however many of them share it."""
    sizes: dict[int, int] = {}
    for tensor in _tensors(modules):
        if tensor.layout is torch.strided:
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
        else:  # packed for oneDNN, which shows no storage
            sizes[id(tensor)] = tensor.numel() * tensor.element_size()
    return sum(sizes.values())


def _tensors(modules: Iterable[nn.Module]) -> Iterator[Tensor]:
    """The parameters and buffers of modules, and the tensors that are plain attributes, such as packed weights."""
    for module in modules:
        for held in (module._parameters, module._buffers, vars(module)):
            yield from (value for value in held.values() if isinstance(value, Tensor))
