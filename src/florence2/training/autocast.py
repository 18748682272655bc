"""Which arithmetic training uses on a device: mixed precision, and the implementation of attention.

In: a device. Out: contexts in which a model is computed. Knows nothing of models or losses.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def autocast(device: str | torch.device, *, is_mixed: bool) -> Iterator[None]:
    """Matrix products in bfloat16 where ``is_mixed``, and the attention that is fastest in training on this device."""
    kind = torch.device(device).type
    with torch.autocast(kind, torch.bfloat16, enabled=is_mixed), attention_for(kind):
        yield


def attention_for(kind: str) -> AbstractContextManager[Any]:
    """The attention that is fastest in training on a type of device, such as "cpu"."""
    # Fused attention in bfloat16 is slower on processors without AMX than the products it is made of; on a GPU it is not.
    return sdpa_kernel(SDPBackend.MATH) if kind == "cpu" else nullcontext()
