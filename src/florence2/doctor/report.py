"""The findings about a machine, as plain values. Knows nothing of how they are found or shown."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Processor:
    """What computes.

    Attributes:
        name: as the system calls it.
        machine: its kind, such as "x86_64".
        num_cores: processors that this process may use: by affinity and the quotas of its control groups.
        num_allowed: by affinity alone.
        quota: the smallest quota, in processors; None where there is none.
        instructions: those that make a difference here, by their usual names.
        num_busy: processors that are wanted at the moment, by all programs of the machine; None if unknown.
    """

    name: str
    machine: str
    num_cores: int
    num_allowed: int
    quota: float | None
    instructions: tuple[str, ...]
    num_busy: float | None


@dataclass(frozen=True)
class Memory:
    """Bytes that this process may use, and what the machine has swapped out; None if unknown."""

    usable_bytes: int | None
    swapped_bytes: int | None


@dataclass(frozen=True)
class Torch:
    """PyTorch: its version, the GPUs that its build is for ("CUDA 12.8", "CPUs alone"), its threads, and the devices that it finds."""

    version: str
    build: str
    num_threads: int
    devices: tuple[str, ...]


@dataclass(frozen=True)
class Routines:
    """Where the compiled routines come from: "wheel", "cache", "built", "off" or "none", and the level, file or reason."""

    kind: str
    reason: str


@dataclass(frozen=True)
class AutomaticPrecision:
    """What ``auto`` means on the device that ``auto`` chooses, and why."""

    device: str
    precision: str
    reason: str


@dataclass(frozen=True)
class Model:
    """A known checkpoint that is on this machine."""

    alias: str
    folder: str


@dataclass(frozen=True)
class Estimate:
    """How long one image takes on the processor, put together from a few measured layers with random weights.

    Attributes:
        model: the size that it is for.
        precision: the precision that it is for.
        num_tokens: the length of the answer.
        num_beams: how many beams are searched.
        tower_s: the vision tower.
        encoder_s: the prompt and the image's tokens through the text encoder.
        step_s: one token.
    """

    model: str
    precision: str
    num_tokens: int
    num_beams: int
    tower_s: float
    encoder_s: float
    step_s: float

    @property
    def image_s(self) -> float:
        """Seconds of one image, alone."""
        return self.tower_s + self.encoder_s + self.num_tokens * self.step_s


@dataclass(frozen=True)
class Report:
    """All of it; parts that could not be found out are None, with the reason in ``problems`` where something is broken."""

    version: str
    python: str
    system: str
    processor: Processor
    memory: Memory
    torch: Torch | None
    routines: Routines | None
    automatic: AutomaticPrecision | None
    extras: dict[str, bool]
    models: tuple[Model, ...]
    folders: dict[str, str]
    estimate: Estimate | None
    faster: tuple[str, ...]
    problems: tuple[str, ...]
