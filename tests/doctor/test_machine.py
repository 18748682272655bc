"""What is read of the system, and where it says nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from florence2.doctor import machine

CPUINFO = "processor\t: 0\nmodel name\t: A Xeon\nflags\t\t: fpu avx2 fma avx512f avx512_vnni\n\nprocessor\t: 1\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "proc").mkdir()
    return tmp_path


def test_the_processor_and_what_it_can_do(root: Path) -> None:
    (root / "proc/cpuinfo").write_text(CPUINFO)
    found = machine.processor(root)
    assert found.name == "A Xeon"
    assert found.instructions == ("AVX2", "FMA", "AVX-512", "AVX512-VNNI")
    assert 1 <= found.num_cores <= found.num_allowed


def test_an_arm_processor(root: Path) -> None:
    (root / "proc/cpuinfo").write_text("processor\t: 0\nFeatures\t: fp asimd asimddp\nModel\t\t: Some Board\n")
    found = machine.processor(root)
    assert (found.name, found.instructions) == ("Some Board", ("NEON", "dot products"))


def test_other_systems_say_less(root: Path) -> None:
    found = machine.processor(root)
    assert found.instructions == ()
    assert found.name
    assert machine.memory(root).swapped_bytes is None
    assert not machine.has_nvidia_gpu(root)


def test_memory_that_is_swapped_out(root: Path) -> None:
    (root / "proc/meminfo").write_text("MemTotal: 10 kB\nSwapTotal:     3000 kB\nSwapFree:      1000 kB\n")
    assert machine.memory(root).swapped_bytes == 2000 * 1024


def test_a_gpu_is_seen_without_pytorch(root: Path) -> None:
    (root / "proc/driver/nvidia").mkdir(parents=True)
    (root / "proc/driver/nvidia/version").touch()
    assert machine.has_nvidia_gpu(root)


def test_extras_whose_packages_are_missing_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "PACKAGES", {"here": frozenset({"json"}), "half": frozenset({"json", "no_such_package"})})
    assert machine.extras() == {"here": True, "half": False}
