"""Where a model runs and in which numbers: the words that users write, and what they mean here.

Knows PyTorch's view of the machine and nothing of models.
"""

from __future__ import annotations

import contextlib
import ctypes

import torch

from florence2.errors import InvalidOption
from florence2.model.cpu.packed import can_pack, has_bf16_products
from florence2.model.cpu.quantized import can_quantize
from florence2.model.precision import Precision

# What users write → the type of weights and activations.
PRECISIONS: dict[str, torch.dtype] = {
    "fp32": torch.float32,
    "float32": torch.float32,
    "bf16": torch.bfloat16,
    "bfloat16": torch.bfloat16,
    "fp16": torch.float16,
    "float16": torch.float16,
    "half": torch.float16,
}
QUANTIZED = "int8"


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


def choose_numbers(precision: str, device: torch.device) -> Precision:
    """What a model computes in on ``device``.

    "auto" is the fastest type that the device multiplies by instructions made for it and that keeps answers (``docs/benchmarks.md`` has
    the measurements): bfloat16 on processors with AMX or AVX512-BF16 and on GPUs that have it, float16 on other GPUs, float32 elsewhere.

    Raises:
        InvalidOption: no such precision, or not on this device.
    """
    if precision == "auto":
        dtype = _automatic(device)
        return Precision(dtype, dtype)
    if precision == QUANTIZED:
        if device.type != "cpu":
            raise InvalidOption(f"precision int8 is for CPUs, and the device is {device}; take bf16 or fp16 there", field="precision")
        return Precision(_automatic(device), torch.float32, is_quantized=True)
    try:
        dtype = PRECISIONS[precision]
    except (KeyError, TypeError):
        names = ", ".join(["auto", *PRECISIONS, QUANTIZED])
        raise InvalidOption(f"precision must be one of {names}; got {precision!r}", field="precision") from None
    return Precision(dtype, dtype)


def choose_packing(numbers: Precision, device: torch.device) -> Precision | None:
    """The same numbers if linear layers can be packed in them here, or None.

    Raises:
        InvalidOption: 8 bits were asked for and PyTorch has no routines for them here.
    """
    if device.type != "cpu":
        return None
    if numbers.is_quantized and not can_quantize():
        raise InvalidOption("precision int8 needs a PyTorch with oneDNN, which this one is not; take bf16 or fp32", field="precision")
    return numbers if numbers.is_quantized or can_pack(numbers.text) else None


def give_back_memory() -> None:
    """Return what loading has freed to the system: glibc keeps it, and the engine's thread takes from elsewhere."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _automatic(device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if device.type == "cpu" and has_bf16_products() else torch.float32


def _is_here(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    return device.type == "cpu" or (device.type == "mps" and torch.backends.mps.is_available())


def _devices_here() -> list[str]:
    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return [*cuda, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]
