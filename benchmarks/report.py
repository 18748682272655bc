"""Where figures go: one JSON file a benchmark, with the machine and the versions that they were measured with."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import torch

from florence2.model.cpu.packed import has_bf16_products
from florence2.outputs import NewFiles

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "pillow")


def write(name: str, settings: dict[str, Any], figures: Any) -> Path:
    """Write ``results/NAME.json`` and give back its path; what was there is kept as ``NAME-earlier.json``, or with a number."""
    content = {"measured": datetime.now(UTC).strftime("%Y-%m-%d"), "machine": machine(), "settings": settings, "figures": figures}
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    if path.exists():
        with NewFiles(RESULTS).create(f"{name}-earlier", ".json") as file:
            file.write(path.read_bytes())
        print(f"what {path.name} held is kept in {file.name}", file=sys.stderr)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path


def by_processor(name: str) -> str:
    """The name of results that stand beside those of processors of the other kind: with instructions for bfloat16, and without."""
    return name if has_bf16_products() else f"{name}_without_bf16"


def machine() -> dict[str, Any]:
    """What the figures depend on: processor, its vector instructions, memory, and versions."""
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text(encoding="utf-8").splitlines() if cpu_info.exists() else []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    known = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
    flags = facts.get("flags", "").split()
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return gpu | {
        "processor": facts.get("model name", platform.processor()),
        "instructions": [flag for flag in known if flag in flags],
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
    }


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest of some times, in milliseconds."""
    return {name: round(value * 1000, 3) for name, value in (("median", median(seconds)), ("min", min(seconds)), ("max", max(seconds)))}
