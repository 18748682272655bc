"""Where a model runs and in which numbers: the words that users write, and what they mean here.

Knows PyTorch's view of the machine and nothing of models.
"""

from __future__ import annotations

import torch

from florence2.errors import InvalidOption

# What users write → the type of weights and activations. "auto" is exact until faster types are measured and documented.
PRECISIONS: dict[str, torch.dtype] = {
    "auto": torch.float32,
    "fp32": torch.float32,
    "float32": torch.float32,
    "bf16": torch.bfloat16,
    "bfloat16": torch.bfloat16,
    "fp16": torch.float16,
    "float16": torch.float16,
    "half": torch.float16,
}


def choose_device(name: str | torch.device = "auto") -> torch.device:
    """The device of that name: "auto" is the first of cuda, mps and cpu that this machine has.

    Raises:
        InvalidOption: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise InvalidOption(f"device must be auto, cpu, cuda, cuda:0 … or mps, got {name!r}", field="device") from None
    if not _is_here(device):
        raise InvalidOption(f"device {str(name)!r} is not on this machine, which has {', '.join(_devices_here())}", field="device")
    return device


def choose_dtype(precision: str = "auto") -> torch.dtype:
    """The floating-point type of a precision's name.

    Raises:
        InvalidOption: no such precision.
    """
    try:
        return PRECISIONS[precision]
    except (KeyError, TypeError):
        raise InvalidOption(f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}", field="precision") from None


def _is_here(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    return device.type == "cpu" or (device.type == "mps" and torch.backends.mps.is_available())


def _devices_here() -> list[str]:
    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return [*cuda, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]
