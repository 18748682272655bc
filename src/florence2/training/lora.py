"""Low-rank updates of linear layers: added to a model for training, merged into it, or saved as an adapter.

In: a model. Out: the same model with ``LoraLinear`` in place of some layers; later plain layers again, or a folder in PEFT's format,
which ``peft`` and this package's loader read. Own code, because ``peft`` would bring ``transformers`` with it (decision 0011).
Source: LoRA (arXiv 2106.09685), PEFT's file format.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from filecmp import cmp
from pathlib import Path
from shutil import copyfile

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from florence2.errors import InvalidOption
from florence2.model import Florence2
from florence2.model.linear import Linear
from florence2.weights.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, BASE_FOLDER, choose
from florence2.weights.names import to_native
from florence2.weights.save import write_json

TARGETS = {
    "language": r"language_model\..+\.(q_proj|k_proj|v_proj|out_proj|fc1|fc2)",
    "vision": r"vision_tower\..+\.(qkv|proj|fc1|fc2)|multi_modal_projector\.image_projection",
}
"""Groups of layers by the pattern of their names."""


class LoraLinear(Linear):
    """A linear layer with ``alpha / rank x B A`` added to its weight; the weight itself no longer learns.

    ``lora_A`` is ``[rank, inputs]`` and starts random, ``lora_B`` is ``[outputs, rank]`` and starts at zero, so that nothing changes
    at first.
    """

    def __init__(self, base: Linear, rank: int, alpha: float, generator: torch.Generator) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        self.scale = alpha / rank
        down = torch.empty(rank, base.in_features)
        nn.init.kaiming_uniform_(down, a=math.sqrt(5), generator=generator)
        self.lora_A = nn.Parameter(down.to(base.weight.device))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank, device=base.weight.device))

    def product(self, hidden: Tensor) -> Tensor:
        """``hidden`` times the updated weight, and the bias."""
        return super().product(hidden) + self.scale * F.linear(F.linear(hidden, self.lora_A), self.lora_B)

    @torch.no_grad()
    def merged(self) -> Linear:
        """A plain layer with the updated weight."""
        plain = Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        plain.weight = nn.Parameter(self.weight + self.scale * (self.lora_B @ self.lora_A))
        plain.bias = self.bias
        return plain


def add_lora(model: Florence2, *, targets: Sequence[str], rank: int, alpha: float, seed: int) -> None:
    """Put ``LoraLinear`` in place of every layer of the named groups, and let nothing else of the model learn.

    Args:
        model: changed in place.
        targets: names out of ``TARGETS``.
        rank: of each update.
        alpha: an update is scaled by ``alpha / rank``.
        seed: of the factors that start random.
    """
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    for name, layer in list(_layers(model, Linear)):
        if any(re.fullmatch(TARGETS[target], name) for target in targets):
            _put(model, name, LoraLinear(layer, rank, alpha, generator))


@contextmanager
def without_lora(model: Florence2) -> Iterator[Florence2]:
    """The model as it was before training, for as long as the context lasts."""
    layers = [layer for _, layer in _layers(model, LoraLinear)]
    scales = [layer.scale for layer in layers]
    for layer in layers:
        layer.scale = 0.0
    try:
        yield model
    finally:
        for layer, scale in zip(layers, scales, strict=True):
            layer.scale = scale


def merge_lora(model: Florence2) -> None:
    """Put plain layers with the updated weights back; the model then answers as before and can be saved whole."""
    for name, layer in list(_layers(model, LoraLinear)):
        _put(model, name, layer.merged())


def keep_adapters(folder: Path, adapters: Sequence[Path], base: str, revision: str | None = None) -> None:
    """Put the adapters that a new one builds upon below it, each as the base of the next: so the new one is whole wherever it goes.

    Args:
        folder: the new adapter's; what a run that goes on finds there must be the same.
        adapters: their folders, in the order of merging.
        base: the checkpoint below them all, as a reader finds it.
        revision: of a base on the hub.

    Raises:
        InvalidOption: other adapters lie there.
    """
    for depth, adapter in enumerate(reversed(adapters), 1):
        folder, is_last = folder / BASE_FOLDER, depth == len(adapters)
        names = [name for name in choose(path.name for path in adapter.iterdir()) if name != ADAPTER_CONFIG]
        if folder.exists() and not all((folder / name).is_file() and cmp(adapter / name, folder / name, False) for name in names):
            raise InvalidOption(f"a run goes on with the adapters that it began with, and {folder} is not {adapter}", field="adapter")
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            copyfile(adapter / name, folder / name)
        config = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        below = {"base_model_name_or_path": base, "revision": revision} if is_last else {"base_model_name_or_path": BASE_FOLDER}
        write_json(folder / ADAPTER_CONFIG, {**config, "revision": None, **below})


def save_adapter(
    model: Florence2, folder: Path, *, base: str, revision: str | None = None, targets: Sequence[str], rank: int, alpha: float
) -> None:
    """Write the updates as an adapter in PEFT's format, with module names of the native layout.

    Args:
        model: with ``LoraLinear`` layers.
        folder: made if need be.
        base: the checkpoint that it belongs to, as a reader finds it: an alias's hub repository, a hub id, a folder.
        revision: of a base on the hub.
        targets: as in ``add_lora``.
        rank: likewise.
        alpha: likewise.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, layer in _layers(model, LoraLinear):
        for part in ("lora_A", "lora_B"):
            value = getattr(layer, part).detach().to("cpu", torch.float32).contiguous()
            tensors[f"base_model.model.{to_native(name)}.{part}.weight"] = value
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "revision": revision,
        "target_modules": to_native("(" + "|".join(TARGETS[target] for target in targets) + ")").replace("model.", r"model\.", 1),
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
        "modules_to_save": None,
        "task_type": None,
    }
    weights = folder / ADAPTER_WEIGHTS[0]
    partial = weights.with_name(f"{weights.name}.partial")
    save_file(tensors, partial, metadata={"format": "pt"})
    os.replace(partial, weights)
    write_json(folder / ADAPTER_CONFIG, config)


def _layers(model: nn.Module, kind: type[nn.Module]) -> Iterator[tuple[str, LoraLinear]]:
    return ((name, module) for name, module in model.named_modules() if isinstance(module, kind))  # type: ignore[misc]


def _put(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)
