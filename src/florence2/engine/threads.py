"""How PyTorch shares the machine: how long its threads spin for each other, and how many there are.

Both have to be settled early: libgomp reads how long to spin when it is loaded, so ``import_torch`` runs before anything in this room
imports PyTorch, and threads take their number when they first compute. What the user has set stays. Knows nothing of models.
"""

from __future__ import annotations

import os
import sys

from florence2.cores import usable_cores

SPIN = "GOMP_SPINCOUNT"
# Rounds that a thread waits for the others before it sleeps. libgomp's own 300,000 are milliseconds in which the thread that is waited for
# may need the very processor. Measured by benchmarks/neighbours.py.
SPIN_COUNT = "200"
CHOSEN_BY_USER = (SPIN, "OMP_WAIT_POLICY")


def import_torch() -> None:
    """Import PyTorch with threads that soon sleep; nothing where it is imported already or the user has chosen."""
    if "torch" in sys.modules or any(name in os.environ for name in CHOSEN_BY_USER):
        return
    os.environ[SPIN] = SPIN_COUNT
    try:
        import torch  # noqa: F401 - for its libgomp
    finally:  # programs that this one starts are none of our business
        del os.environ[SPIN]


def bound_threads() -> None:
    """Let PyTorch compute with no more threads than there are processors for, unless the user has said how many."""
    import torch

    if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > (cores := usable_cores()):
        torch.set_num_threads(cores)
