"""Where a model runs and in which numbers: the words that users write, and what they mean here.

Knows PyTorch's view of the machine and nothing of models.
"""

from __future__ import annotations

import ctypes
import sys

import torch

from florence2.errors import InvalidOption
from florence2.model.packed import Numbers, can_pack, can_quantize, has_bf16_products

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

# Parameters of glibc's mallopt (its malloc.h), and up to what size a block is kept rather than given back.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_KEPT = 1 << 30


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


def choose_numbers(precision: str, device: torch.device) -> Numbers:
    """What a model computes in on ``device``.

    "auto" is the fastest type that the device multiplies by instructions made for it and that keeps answers (``docs/benchmarks.md`` has
    the measurements): bfloat16 on processors with AMX or AVX512-BF16 and on GPUs that have it, float16 on other GPUs, float32 elsewhere.

    Raises:
        InvalidOption: no such precision, or not on this device.
    """
    if precision == "auto":
        dtype = _automatic(device)
        return Numbers(dtype, dtype)
    if precision == QUANTIZED:
        if device.type != "cpu":
            raise InvalidOption(f"precision int8 is for CPUs, and the device is {device}; take bf16 or fp16 there", field="precision")
        return Numbers(_automatic(device), torch.float32, is_quantized=True)
    try:
        dtype = PRECISIONS[precision]
    except (KeyError, TypeError):
        names = ", ".join(["auto", *PRECISIONS, QUANTIZED])
        raise InvalidOption(f"precision must be one of {names}; got {precision!r}", field="precision") from None
    return Numbers(dtype, dtype)


def choose_packing(numbers: Numbers, device: torch.device) -> Numbers | None:
    """The same numbers if linear layers can be packed in them here, or None.

    Raises:
        InvalidOption: 8 bits were asked for and PyTorch has no routines for them here.
    """
    if device.type != "cpu":
        return None
    if numbers.is_quantized and not can_quantize():
        raise InvalidOption("precision int8 needs a PyTorch with oneDNN, which this one is not; take bf16 or fp32", field="precision")
    return numbers if numbers.is_quantized or can_pack(numbers.text) else None


def settle_memory() -> None:
    """Have the C library hand freed memory out again instead of returning it to the system.

    A large tensor's pages come from the system zeroed, one fault for each 4 KiB, which costs the vision tower as much as its norms.
    Holds for the whole process, and only where the C library is glibc; elsewhere nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)
    mallopt(M_TRIM_THRESHOLD, LARGEST_KEPT)


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
