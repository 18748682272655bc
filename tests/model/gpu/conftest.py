"""Kernels for GPUs need Triton, which PyTorch's builds for NVIDIA bring, and for tests on CPUs the development requirements on Linux."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore = [] if find_spec("triton") else ["test_fused_step.py"]
