"""Memory of the C library's heap. Knows nothing of tensors or models."""

from __future__ import annotations

import contextlib
import ctypes


def give_back_memory() -> None:
    """Return what was freed to the system: glibc keeps it, and what comes next, in other sizes or by another thread, is on top of it."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
