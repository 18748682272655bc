"""The processor, the memory and the installed packages of this machine. Standard library only; what can't be found out is None."""

from __future__ import annotations

import os
import platform
import re
from importlib.util import find_spec
from pathlib import Path

from florence2.cores import allowed_cores, cpu_quota, usable_cores
from florence2.doctor.report import Memory, Processor
from florence2.extras import PACKAGES
from florence2.model.cpu.built_ahead import features_of
from florence2.usable_memory import usable_memory

# By the names that /proc/cpuinfo has for them; those that PyTorch, oneDNN or the compiled routines choose by.
_INSTRUCTIONS = {
    "avx2": "AVX2",
    "fma": "FMA",
    "f16c": "F16C",
    "avx512f": "AVX-512",
    "avx_vnni": "AVX-VNNI",
    "avx512_vnni": "AVX512-VNNI",
    "avx512_bf16": "AVX512-BF16",
    "amx_tile": "AMX",
    "amx_bf16": "AMX-BF16",
    "amx_int8": "AMX-INT8",
    "asimd": "NEON",
    "asimddp": "dot products",
    "i8mm": "8-bit products",
    "bf16": "bfloat16",
    "sve": "SVE",
}


def processor(root: Path = Path("/")) -> Processor:
    """The processor.

    Args:
        root: where ``/proc`` and ``/sys`` are; another folder in tests.
    """
    text = _text(root / "proc/cpuinfo")
    features = features_of(text)
    name = re.search(r"^(?:model name|Model)[ \t]*: *(.+)$", text, re.MULTILINE)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return Processor(
        name=name[1] if name else platform.processor() or platform.machine(),
        machine=platform.machine(),
        num_cores=usable_cores(root),
        num_allowed=allowed_cores(),
        quota=cpu_quota(root),
        instructions=tuple(shown for feature, shown in _INSTRUCTIONS.items() if feature in features),
        num_busy=load,
    )


def memory(root: Path = Path("/")) -> Memory:
    """The memory; ``root`` as in ``processor``."""
    fields = {key: int(value) * 1024 for key, value in re.findall(r"^(SwapTotal|SwapFree): +(\d+) kB$", _text(root / "proc/meminfo"), re.M)}
    swapped = fields["SwapTotal"] - fields["SwapFree"] if len(fields) == 2 else None
    return Memory(usable_memory(root), swapped)


def extras() -> dict[str, bool]:
    """Which extras are installed."""
    return {extra: all(_is_installed(package) for package in packages if package != "uvloop") for extra, packages in PACKAGES.items()}


def has_nvidia_gpu(root: Path = Path("/")) -> bool:
    """Whether the system shows an NVIDIA GPU, PyTorch aside; ``root`` as in ``processor``."""
    return (root / "dev/nvidia0").exists() or (root / "proc/driver/nvidia/version").exists()


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):  # hidden, or half of it removed
        return False


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # another system
        return ""
