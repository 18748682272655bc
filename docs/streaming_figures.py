"""What streaming gains and costs, as Markdown: the figures of ``benchmarks/streaming.py``."""

from __future__ import annotations

from docs import figures

_WAYS = {"in_process": "the engine", "http": "over HTTP"}


def streaming() -> str:
    """How soon an answer begins, and what a step with a listener takes."""
    found = figures._result("streaming")
    if found is None:
        return figures._unmeasured("streaming")
    header = ("Answer", "", "First text", "First object", "Whole answer", "First object after")
    moments = ("first_text", "first_object", "whole")
    rows = [
        (_shown(case), words, *(f"{one[moment]['median']:.0f} ms" for moment in moments), f"{one['first_object_share']:.0%} of the time")
        for way, words in _WAYS.items()
        for case, one in found["figures"][way].items()
    ]
    steps = [
        (
            _shown(case),
            f"{one['without_ms']:.2f} ms",
            f"{one['with_ms']:.2f} ms",
            f"{one['ratio'] - 1:+.1%}",
            f"{one['ratio_by_the_clock'] - 1:+.1%}",
        )
        for case, one in found["figures"]["steps"].items()
    ]
    settings = found["settings"]
    return (
        f"{settings['model']} on {settings['scenes']} drawn scenes, medians; the image is encoded anew for each request.\n\n"
        + figures.table(header, rows)
        + "\n\nOne step of the decoder on one thread, without and with a listener for each request: processor time of the engine's "
        "thread, and what the listener adds by it and by the clock.\n\n"
        + figures.table(
            ("Requests", "Without", "With", "Added", "Added by the clock"),
            steps,
        )
        + f"\n\n{figures._origin('streaming', found)}"
    )


def _shown(case: str) -> str:
    tag, load = case.split(", ", 1)
    return f"`{tag}`, {load}"
