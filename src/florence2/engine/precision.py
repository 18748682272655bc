"""The precision of a model: the names that users write, and what they mean on a device. Knows nothing of checkpoints."""

from __future__ import annotations

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


def choose_precision(precision: str, device: torch.device) -> Precision:
    """The precision of a model on ``device``.

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
    if dtype == torch.bfloat16 and device.type == "cpu" and not has_bf16_products() and can_pack(torch.float32):
        # PyTorch's products would be emulated: many times slower than those of float32.
        return Precision(decoder=torch.bfloat16)
    return Precision(dtype, dtype)


def choose_packing(precision: Precision, device: torch.device) -> Precision | None:
    """The same precision if linear layers can be packed in it on this device, or None.

    Raises:
        InvalidOption: int8 on a PyTorch that has no routines for it.
    """
    if device.type != "cpu":
        return None
    if precision.is_quantized and not can_quantize():
        raise InvalidOption("precision int8 needs a PyTorch with oneDNN, which this one is not; take bf16 or fp32", field="precision")
    return precision if precision.is_quantized or can_pack(precision.text) else None


def _automatic(device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if device.type == "cpu" and has_bf16_products() else torch.float32
