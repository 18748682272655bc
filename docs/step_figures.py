"""What a decoder step costs, as Markdown: the figures of ``benchmarks/decoder_step.py``."""

from __future__ import annotations

from typing import Any

from docs import figures


def decoder_step(name: str = "decoder_step") -> str:
    """Steps by precision and rows, beside the time of reading what they read, and where it was measured how long they took before."""
    found = figures._result(name)
    if found is None:
        return figures._unmeasured(name)
    before, after = found["figures"].get("before"), found["figures"]["after"]
    rows = [
        (precision, rows, *([_times(before[precision][rows])] if before else []), _times(one), *_reading(one))
        for precision, by_rows in after.items()
        for rows, one in by_rows.items()
    ]
    header = ("Precision", "Rows", *(["As operators"] if before else []), "As one call", "It reads", "Which takes", "Times that")
    return (
        figures.table(header, rows)
        + f"\n\nThe next tokens are chosen behind it, of which no time above has a part: {_choosing(after['int8'])} "
        + f"(medians behind steps in int8). {figures._origin(name, found)}"
    )


def _choosing(by_rows: dict[str, dict[str, float]]) -> str:
    each = (f"for {rows} in {one['choosing_ms']:.1f} ms ({one['choosing_by_pytorch_ms']:.1f} by PyTorch)" for rows, one in by_rows.items())
    return ", ".join(each)


def _reading(one: dict[str, float]) -> tuple[str, str, str]:
    floor_ms = one["read_mb"] / one["read_gb_per_s"]
    return f"{one['read_mb']:.0f} MB", f"{floor_ms:.1f} ms", f"{one['median_ms'] / floor_ms:.1f}"


def _times(one: dict[str, Any]) -> str:
    return f"{one['median_ms']:.1f} ms ({one['shortest_ms']:.1f})"


def precision_logits() -> str:
    """What fewer bits change in the logits of a model of full size with random weights."""
    found = figures._result("precision_logits")
    if found is None:
        return figures._unmeasured("precision_logits")
    settings = found["settings"]
    rows = [(name, f"{one['same_best']:.1%}", f"{one['of_best_nats']:.3f}") for name, one in found["figures"].items()]
    asked = (
        f"{settings['size'].title()} size, random weights, {settings['pictures']} pictures of noise, {settings['tokens']} tokens of each"
    )
    header = ("Precision", "The same best token", "Its log-probability changes by")
    return f"{figures.table(header, rows)}\n\n{asked}, those of fp32. {figures._origin('precision_logits', found)}"
