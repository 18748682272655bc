"""The device that a model runs on, by the names that users write. Knows PyTorch's view of the machine and nothing of models."""

from __future__ import annotations

import torch

from florence2.errors import InvalidOption


def choose_device(name: str | torch.device = "auto") -> torch.device:
    """The device of that name: "auto" is the first of cuda, mps and cpu that this machine has.

    Raises:
        InvalidOption: this machine has no such device.
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


def _is_here(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    return device.type == "cpu" or (device.type == "mps" and torch.backends.mps.is_available())


def _devices_here() -> list[str]:
    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return [*cuda, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]
