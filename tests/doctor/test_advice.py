"""Each thing that makes a machine slow is said, and nothing where there is nothing to say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from florence2.doctor.advice import advice
from florence2.doctor.report import AutomaticPrecision, Memory, Processor, Routines, Torch

PROCESSOR = Processor("A", "x86_64", 4, 4, None, ("AVX2",), 1.0)
MEMORY = Memory(8 << 30, 0)
TORCH = Torch("2.13.0", "CPUs alone", 4, ("cpu",))
WHEEL = Routines("wheel", "x86-64-v3")
FP32 = AutomaticPrecision("cpu", "fp32", "")
BF16 = AutomaticPrecision("cpu", "bf16", "")


def said(
    processor: Processor = PROCESSOR,
    memory: Memory = MEMORY,
    torch: Torch | None = TORCH,
    routines: Routines | None = WHEEL,
    automatic: AutomaticPrecision | None = BF16,
    has_gpu: bool = False,
) -> list[str]:
    return list(advice(processor, memory, torch, routines, automatic, has_gpu=has_gpu))


def test_nothing_is_said_of_a_machine_that_is_well() -> None:
    assert said() == []
    assert said(memory=Memory(None, None), processor=replace(PROCESSOR, num_busy=None)) == []


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"routines": Routines("none", "no g++")}, r"no compiled routines \(no g\+\+\): install the wheel .* or a g\+\+"),
        ({"routines": Routines("off", "FLORENCE2_NATIVE=0")}, "switched off: leave out FLORENCE2_NATIVE=0"),
        ({"torch": replace(TORCH, num_threads=1)}, "with 1 of 4 processors"),
        ({"torch": replace(TORCH, num_threads=8)}, "8 threads for 4 processors.*OMP_NUM_THREADS=4"),
        ({"processor": replace(PROCESSOR, instructions=("AVX2", "AVX512-VNNI"))}, "precision int8 is faster"),
        ({"automatic": FP32}, "fewer bits to read"),
        ({"automatic": FP32, "processor": replace(PROCESSOR, instructions=("AVX-VNNI",))}, "precision int8 is faster"),
        ({"automatic": FP32, "routines": Routines("none", "no g++")}, "no compiled routines"),
        ({"memory": Memory(1 << 30, 0)}, "1.0 GiB of memory"),
        ({"memory": Memory(8 << 30, 3 << 30)}, "swapped out 3.0 GiB"),
        ({"processor": replace(PROCESSOR, num_busy=6.5)}, "6.5 processors are wanted"),
        ({"has_gpu": True}, r"NVIDIA GPU that PyTorch \(CPUs alone\) does not use"),
    ],
)
def test_what_makes_it_slow_is_said(changed: dict, says: str) -> None:
    import re

    (sentence,) = said(**changed)
    assert re.search(says, sentence)


def test_of_a_gpu_that_is_used_nothing_of_processors_is_said() -> None:
    cuda = AutomaticPrecision("cuda", "bf16", "")
    torch = replace(TORCH, devices=("cuda:0 (A)", "cpu"), num_threads=1)
    assert said(torch=torch, automatic=cuda, routines=Routines("none", ""), has_gpu=True) == []


def test_without_pytorch_there_is_nothing_to_make_faster() -> None:
    assert said(torch=None, automatic=None, has_gpu=True) == []
