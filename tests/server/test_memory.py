"""Memory that was freed goes back to the system."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from PIL import Image

from florence2.server import memory
from florence2.server.memory import LARGE_BYTES, FreedMemory, keep_picture_blocks


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


@pytest.mark.anyio
async def test_blocks_of_pictures_are_used_again_and_go_back_when_nothing_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "EVERY_S", 0.01)
    most = Image.core.get_blocks_max()
    held = [1]
    giving_back = asyncio.create_task(FreedMemory(lambda: held[0]).keep_giving_back())
    try:
        keep_picture_blocks(1)
        for _ in range(2):
            Image.new("RGB", (2000, 2000))
        await asyncio.sleep(0.05)
        stats = Image.core.get_stats()
        assert stats["blocks_cached"] > 0
        assert stats["reused_blocks"] > 0
        held[0] = 0
        async with asyncio.timeout(10):
            while Image.core.get_stats()["blocks_cached"]:
                await asyncio.sleep(0.01)
    finally:
        giving_back.cancel()
        Image.core.set_blocks_max(most)
