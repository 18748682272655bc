"""``florence2 doctor``: what this machine runs with, how fast, and what would make it faster.

Out: lines for people, or one JSON object for programs. Ends with 1 if models can't run. Nothing heavy is imported before the command runs.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from florence2.console import json_line, shown

if TYPE_CHECKING:
    from florence2.doctor.report import Estimate, Processor, Report, Routines

_WIDTH, _LABEL = 120, 13
_ORIGINS = {
    "wheel": "from the wheel, for {}",
    "cache": "built for this processor, kept in {}",
    "built": "built for this processor just now: {}",
    "off": "switched off: {}",
    "none": "none: {}",
}


def doctor(
    quick: Annotated[bool, typer.Option("--quick", help="Do not measure how long an image takes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what this machine runs with, how fast, and why."""
    from florence2.doctor.examine import examine

    report = examine(measured=not quick)
    if as_json:
        estimate = None if report.estimate is None else asdict(report.estimate) | {"image_s": report.estimate.image_s}
        print(json_line(asdict(report) | {"estimate": estimate}), flush=True)
    else:
        for label, text in _lines(report):
            first = f"{label:<{_LABEL}}"
            print(textwrap.fill(shown(text), _WIDTH, initial_indent=first, subsequent_indent=" " * _LABEL, break_on_hyphens=False))
    if report.problems:
        raise typer.Exit(1)


def _lines(report: Report) -> Iterator[tuple[str, str]]:
    """The lines for people: a label, and what is said of it."""
    yield "florence2", f"{report.version}, {report.python}, {report.system}"
    yield "processor", _processor(report.processor)
    if report.memory.usable_bytes is not None:
        yield "memory", f"{report.memory.usable_bytes / 2**30:.1f} GiB usable"
    if report.torch is not None:
        torch = report.torch
        yield "PyTorch", f"{torch.version}, built for {torch.build}; threads: {torch.num_threads}; devices: {', '.join(torch.devices)}"
    if report.routines is not None:
        yield "routines", _routines(report.routines)
    if report.automatic is not None:
        yield "precision", f"auto is {report.automatic.precision} on {report.automatic.device}: {report.automatic.reason}"
    yield "models here", ", ".join(model.alias for model in report.models) or "none"
    for is_here, label in ((True, "extras"), (False, "not there")):
        if names := [extra for extra, installed in report.extras.items() if installed is is_here]:
            yield label, ", ".join(names)
    yield "folders", "; ".join(f"{what}: {folder}" for what, folder in report.folders.items())
    if report.estimate is not None:
        yield "speed", _estimate(report.estimate)
    for number, text in enumerate(report.faster):
        yield "" if number else "faster", text
    for number, text in enumerate(report.problems):
        yield "" if number else "broken", text


def _processor(processor: Processor) -> str:
    quota = "" if processor.quota is None else f", quota {processor.quota:g}"
    can = ", ".join(processor.instructions) or "no instructions that make a difference here"
    return f"{processor.name} ({processor.machine}); cores: {processor.num_cores} of {processor.num_allowed}{quota}; {can}"


def _routines(routines: Routines) -> str:
    return _ORIGINS[routines.kind].format(routines.reason)


def _estimate(estimate: Estimate) -> str:
    return (
        f"about {_seconds(estimate.image_s)} an image with {estimate.model} in {estimate.precision}, {estimate.num_tokens} tokens and "
        f"{estimate.num_beams} beams: vision {_seconds(estimate.tower_s)}, prompt {_seconds(estimate.encoder_s)}, each token "
        f"{_seconds(estimate.step_s)}. An estimate from some layers, without a checkpoint"
    )


def _seconds(value: float) -> str:
    """Two digits are all that an estimate has."""
    return f"{value:.0f} s" if value >= 10 else f"{value:.1f} s" if value >= 1 else f"{value * 1000:.0f} ms"
