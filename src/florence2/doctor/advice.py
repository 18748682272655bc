"""What would make this machine faster, from what was found. Values in, sentences out."""

from __future__ import annotations

from collections.abc import Iterator

from florence2.doctor.report import AutomaticPrecision, Memory, Processor, Routines, Torch

_ENOUGH_BYTES = 2 << 30  # florence-2-base in fp32 and what an answer needs
_SWAPPED_BYTES = 1 << 30
_COMPILED = frozenset({"wheel", "cache", "built"})
_EIGHT_BITS = frozenset({"AVX-VNNI", "AVX512-VNNI", "AMX-INT8"})


def advice(
    processor: Processor,
    memory: Memory,
    torch: Torch | None,
    routines: Routines | None,
    automatic: AutomaticPrecision | None,
    *,
    has_gpu: bool,
) -> Iterator[str]:
    """Sentences, the most useful first.

    Args:
        processor: what computes.
        memory: what there is.
        torch: PyTorch; None if it can't be imported.
        routines: where the compiled routines come from.
        automatic: what ``auto`` means.
        has_gpu: whether the system shows an NVIDIA GPU.
    """
    if torch is None or automatic is None:
        return
    if has_gpu and not any(device.startswith("cuda") for device in torch.devices):
        yield f"The system shows an NVIDIA GPU that PyTorch ({torch.build}) does not use: install a build of PyTorch for its driver's CUDA."
    if not automatic.device.startswith("cpu"):
        return
    if routines is not None and routines.kind == "none":
        yield f"There are no compiled routines ({routines.reason}): install the wheel for this system, or a g++."
    if routines is not None and routines.kind == "off":
        yield f"The compiled routines are switched off: leave out {routines.reason}."
    if torch.num_threads < processor.num_cores:
        yield f"PyTorch computes with {torch.num_threads} of {processor.num_cores} processors: leave out OMP_NUM_THREADS, or raise it."
    if torch.num_threads > processor.num_cores:
        yield (
            f"PyTorch has {torch.num_threads} threads for {processor.num_cores} processors, so that they wait for each other: "
            f"set OMP_NUM_THREADS={processor.num_cores}, or leave it out."
        )
    if automatic.precision != "int8" and _EIGHT_BITS & set(processor.instructions):
        yield "This processor multiplies 8-bit integers: precision int8 is faster, and its answers differ slightly."
    elif automatic.precision == "fp32" and routines is not None and routines.kind in _COMPILED:
        yield (
            "Long answers come faster with fewer bits to read for each token: precision bf16 keeps the decoder's weights in half of them, "
            "int8 in a quarter, and answers differ slightly."
        )
    if memory.usable_bytes is not None and memory.usable_bytes < _ENOUGH_BYTES:
        yield f"There are {memory.usable_bytes / 2**30:.1f} GiB of memory; florence-2-base needs about 2."
    if memory.swapped_bytes is not None and memory.swapped_bytes > _SWAPPED_BYTES:
        yield f"The machine has swapped out {memory.swapped_bytes / 2**30:.1f} GiB: less in memory, or more of it, is faster."
    if processor.num_busy is not None and processor.num_busy > processor.num_cores:
        yield f"{processor.num_busy:.1f} processors are wanted by all programs at the moment: others hold this one up."
