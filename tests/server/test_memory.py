"""Memory that was freed goes back to the system."""

from __future__ import annotations

import subprocess
import sys

import pytest

from florence2.server.memory import LARGE_BYTES, FreedMemory


def test_due_once_most_of_what_was_held_is_gone() -> None:
    held = [0]
    freed = FreedMemory(lambda: held[0])
    for num_bytes, is_due in ((LARGE_BYTES // 2, False), (0, False), (4 * LARGE_BYTES, False), (3 * LARGE_BYTES, False)):
        held[0] = num_bytes
        assert freed.is_due() is is_due
    held[0] = LARGE_BYTES
    assert freed.is_due()
    held[0] = 0
    assert freed.is_due()
    assert not freed.is_due()


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_large_blocks_go_back_at_once() -> None:
    """Blocks between the ones that stay: a heap could not shrink below them."""
    script = """
from florence2.server.memory import map_large_blocks, _glibc
if _glibc() is None: raise SystemExit
map_large_blocks()
def resident(): return int(open("/proc/self/statm").read().split()[1]) * 4096
del_large = bytearray(40 * 2**20); del del_large  # what raises glibc's own threshold
before = resident()
kept, large = [], []
for _ in range(20):
    large.append(b"x" * (5 * 2**20)); kept.append(b"x" * 50_000)
assert resident() - before > 90 * 2**20
large.clear()
assert resident() - before < 20 * 2**20, resident() - before
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
