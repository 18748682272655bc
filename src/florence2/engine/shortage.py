"""What is done when memory runs out: room is made, and the work is tried once more. Knows nothing of what the work is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

Value = TypeVar("Value")

# PyTorch has an error class for GPUs alone; its allocator for processors, oneDNN and C++ raise plain ones.
_WORDS = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "alloc_failed")


def is_shortage(error: BaseException) -> bool:
    """Whether an error means that there was too little memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _WORDS)


def survive(work: Callable[[], Value], make_room: Callable[[BaseException], None]) -> Value:
    """What ``work`` returns; where memory runs out, what it returns when it is called once more.

    Args:
        work: must be able to begin anew after it has failed.
        make_room: called in between, with the error.
    """
    try:
        return work()
    except BaseException as error:
        if not is_shortage(error):
            raise
        shortage = error.with_traceback(None)  # its frames hold the tensors of the work that has failed
    make_room(shortage)
    return work()
