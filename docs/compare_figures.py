"""The comparison with ``transformers`` on a processor without bfloat16, as Markdown: times, memory and start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from docs import figures

RESULT, REFERENCE = "compare_without_bf16", "transformers fp32"
OWN = {"ours auto": "fp32", "ours bf16": "bf16", "ours int8": "int8"}
OWN_WITH_BF16 = {"ours fp32": "fp32", "ours auto": "bf16", "ours int8": "int8"}


def compare_without_bf16() -> str:
    """Times and ratios of each case, then memory and start."""
    found = figures._result(RESULT)
    if found is None:
        return figures._unmeasured(RESULT)
    cases, processes = found["figures"]["cases"], found["figures"]["processes"]
    times = figures.table(
        ("", "`transformers` fp32", *(f"ours {name}" for name in OWN.values())),
        [(f"{name[0].upper()}{name[1:]}", *_times(case)) for name, case in cases.items()],
    )
    whole = processes[REFERENCE]["peak_mib"]
    memory = figures.table(
        ("Base, a process of its own", "Ready", "First answer", "Peak memory", "of `transformers` fp32"),
        [
            (
                f"ours {OWN[name]}" if name in OWN else name,
                *(f"{one[key]:.1f} s" for key in ("ready_s", "first_answer_s")),
                *(f"{one['peak_mib']:.0f} MiB", f"{one['peak_mib'] / whole:.0%}"),
            )
            for name, one in processes.items()
        ],
    )
    repeats = found["settings"]["repeats"]
    note = f"Medians of {repeats} repeats (half as many of the longest cases), and how many times faster. {figures._origin(RESULT, found)}"
    return f"{times}\n\n{memory}\n\n{note}"


def memory(name: str, own: Mapping[str, str]) -> str:
    """What processes held at their highest, by the type of the stored weights.

    Args:
        name: of the results.
        own: whom of ours to show, and what to call it.
    """
    found = figures._result(name)
    if found is None:
        return figures._unmeasured(name)
    rows = []
    for stored, processes in found["figures"].items():
        peaks = {one: measured["peak_mib"] for one, measured in processes.items()}
        shown = (f"{peaks[one]:.0f} MiB, {peaks[one] / peaks[REFERENCE]:.0%}" for one in own)
        rows.append((stored, f"{peaks[REFERENCE]:.0f} MiB", *shown))
    header = ("Weights stored in", "`transformers` fp32", *(f"ours {one}" for one in own.values()))
    repeats = found["settings"]["repeats"]
    return f"{figures.table(header, rows)}\n\nMedians of {repeats} processes each, at base size. {figures._origin(name, found)}"


def _times(case: dict[str, Any]) -> list[str]:
    seconds = {name: times["median"] / 1000 for name, times in case["ms"].items()}
    own = [f"{seconds[name]:.2f} s ({case['times_faster'][name][REFERENCE]:.2f} x)" if name in seconds else "" for name in OWN]
    return [f"{seconds[REFERENCE]:.2f} s", *own]
