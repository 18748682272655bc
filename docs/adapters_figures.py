"""What adapters cost beside the weights of their base, as Markdown: the figures of ``benchmarks/adapters.py``."""

from __future__ import annotations

from typing import Any

from docs import figures

_WAYS = ("base", "rank 8", "rank 32", "every other row rank 8", "4 adapters rank 8", "4 merged copies")


def adapters() -> str:
    """Steps with adapters, and with merged copies in their place; what both take."""
    found = figures._result("adapters")
    if found is None:
        return figures._unmeasured("adapters")
    rows = [
        (f"{precision}, {rows}", f"{times['base']:.1f} ms", *(_added(times, way) for way in _WAYS[1:]))
        for precision, one in found["figures"].items()
        for rows, times in one["step_ms"].items()
    ]
    others = [
        (
            precision,
            *(f"{(one[work]['rank 8'] / one[work]['base'] - 1):+.0%}" for work in ("prompt", "image")),
            f"{one['adapter_mb']['rank 8']:.1f} MB, {one['adapter_mb']['rank 32']:.1f} MB",
            f"{one['merged_copy_mb']:.0f} MB",
            f"{one['add_s']:.1f} s",
            f"{one['merge_s']:.1f} s",
        )
        for precision, one in found["figures"].items()
    ]
    return (
        figures.table(("A step", *_WAYS), rows)
        + "\n\n"
        + figures.table(("", "A prompt, rank 8", "An image, rank 8", "Adapter, rank 8 and 32", "Merged copy", "To add", "To merge"), others)
        + f"\n\nBase size with random weights, adapters of {found['settings']['layers']}, processor time on one thread, the least of "
        f"{found['settings']['turns']} turns. The copies are as many steps of the base, each with its share of the rows; of the image, the "
        f"adapter changes the vision tower. {figures._origin('adapters', found)}"
    )


def _added(times: dict[str, Any], way: str) -> str:
    return f"{times[way] / times['base'] - 1:+.0%}" if way in times else ""
