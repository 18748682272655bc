"""All findings about this machine, put together; what fails is a finding as well.

In: whether speed is measured. Out: a ``Report``. PyTorch and the engine are imported when they are needed, and only if they are there.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from florence2.doctor import machine
from florence2.doctor.advice import advice
from florence2.doctor.report import AutomaticPrecision, Estimate, Model, Report, Routines, Torch
from florence2.errors import Florence2Error
from florence2.version import __version__
from florence2.weights.aliases import ALIASES, DEMO

if TYPE_CHECKING:
    from florence2.weights.checkpoint import Checkpoint

SIDE = 64  # of the picture that the demo model is asked about


def examine(*, measured: bool = True) -> Report:
    """What this machine runs with.

    Args:
        measured: whether to measure how long an image takes.
    """
    problems: list[str] = []
    processor, memory, extras = machine.processor(), machine.memory(), machine.extras()
    torch = _torch(problems)
    routines = automatic = estimate = None
    if torch is not None:
        try:
            routines, automatic = _routines(), _automatic()
            checkpoint = _demo_answers()
            if measured:
                estimate = _estimate(checkpoint)
        except (Florence2Error, OSError, RuntimeError, ImportError) as error:
            problems.append(f"the demo model does not answer: {error}")
    return Report(
        version=__version__,
        python=f"{platform.python_implementation()} {platform.python_version()}, {sys.prefix}",
        system=platform.platform(),
        processor=processor,
        memory=memory,
        torch=torch,
        routines=routines,
        automatic=automatic,
        extras=extras,
        models=tuple(_models()),
        folders=_folders(),
        estimate=estimate,
        faster=tuple(advice(processor, memory, torch, routines, automatic, has_gpu=machine.has_nvidia_gpu())),
        problems=tuple(problems),
    )


def _torch(problems: list[str]) -> Torch | None:
    """PyTorch as the engine would use it; None where it is not installed, or is and can't be imported."""
    try:
        import torch

        from florence2.engine.threads import bound_threads  # imports PyTorch
    except ModuleNotFoundError as error:
        problems.append(f"no model can run: {error.name} is missing; pip install 'florence2-engine[engine]'")
        return None
    except (ImportError, OSError) as error:
        problems.append(f"no model can run: PyTorch can't be imported ({error})")
        return None
    bound_threads()
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {torch.version.hip}" if torch.version.hip else "CPUs alone"
    cuda = [f"cuda:{index} ({torch.cuda.get_device_name(index)})" for index in range(torch.cuda.device_count())]
    devices = (*cuda, *(["mps"] if torch.backends.mps.is_available() else []), "cpu")
    return Torch(torch.__version__, build, torch.get_num_threads(), devices)


def _routines() -> Routines:
    from florence2.model.cpu import kernels

    kernels.prepare()
    return Routines(*kernels.origin())


def _automatic() -> AutomaticPrecision:
    import torch

    from florence2.engine.device import choose_device
    from florence2.engine.precision import choose_precision

    device = choose_device()
    name = choose_precision("auto", device).name
    has_bf16 = "instructions for bfloat16" if device.type == "cpu" else "bfloat16"
    owner = "the processor" if device.type == "cpu" else torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    return AutomaticPrecision(str(device), name, f"{owner} has {'' if name == 'bf16' else 'no '}{has_bf16}")


def _demo_answers() -> Checkpoint:
    """Ask the model that comes with the package, as a test of all that answers; its checkpoint.

    Raises:
        Florence2Error: it can't be loaded, or does not answer.
    """
    from PIL import Image

    from florence2.engine.engine import load
    from florence2.weights import resolve
    from florence2.weights.checkpoint import read_checkpoint

    with load(DEMO) as engine:
        engine.run(Image.new("RGB", (SIDE, SIDE)), "<CAPTION>")
    return read_checkpoint(resolve(DEMO))


def _estimate(checkpoint: Checkpoint) -> Estimate | None:
    """None where the model would run on a GPU, which is not measured."""
    import torch

    from florence2.doctor.estimate import estimate
    from florence2.engine.device import choose_device
    from florence2.engine.precision import choose_precision

    if choose_device().type != "cpu":
        return None
    return estimate(choose_precision("auto", torch.device("cpu")), checkpoint)


def _models() -> Iterator[Model]:
    """The known checkpoints that need no download."""
    for alias in ALIASES.values():
        try:
            folder = _folder(alias.repository, alias.name)
        except (Florence2Error, ImportError):  # without the engine nothing was downloaded
            continue
        if folder is not None:
            yield Model(alias.name, str(folder))


def _folder(repository: str | None, name: str) -> Path | None:
    from florence2.weights import resolve

    if repository is None:
        return resolve(name)
    from florence2.weights.hub import cached

    return cached(repository)


def _folders() -> dict[str, str]:
    """Where things are kept, by what they are."""
    from florence2.model.cpu.library_cache import cache_folder

    routines = cache_folder()
    folders = {"routines": "none that can be written to" if routines is None else str(routines)}
    try:
        from huggingface_hub import constants
    except ImportError:
        return folders
    return folders | {"models": os.fspath(constants.HF_HUB_CACHE)}
