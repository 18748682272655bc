"""A load test of the demo model, as Markdown: the figures of ``benchmarks/load_test.py``, and the picture that was drawn of them."""

from __future__ import annotations

from docs import figures


def load_test() -> str:
    """What became of requests at rising rates."""
    found = figures._result("load_test")
    if found is None:
        return figures._unmeasured("load_test")
    runs, settings = found["figures"]["runs"], found["settings"]
    header = ("Asked", "Answered", "Refused", "p50", "p99", "First event, p50", f"Within {settings['target_s']:g} s", "Kept up")
    rows = [
        (
            f"{run['load']['rate']:g}/s",
            f"{run['answers_per_s']:.1f}/s",
            f"{run['refused'] / max(1, run['sent']):.0%}",
            *(f"{run[key][name]:.2f} s" if run[key] else "" for key, name in _TIMES),
            f"{run['goodput']['share']:.0%}",
            "yes" if run["kept_up"] else "no",
        )
        for run in runs
    ]
    lag = max((run["generator"]["send_lag_s"] or {}).get("p99", 0.0) for run in runs)
    width, height = settings["size"]
    note = (
        f"{settings['model']}, {settings['seconds']:g} s at each rate, Poisson arrivals, drawn pictures of {width} x {height} pixels that "
        f"no cache knows, streamed answers. The generator ran on the same machine and sent at most {1000 * lag:.0f} ms late (p99)."
    )
    picture = "![Latency, what became of requests, throughput and time to the first event over the rate](pictures/load_test.png)"
    return f"{picture}\n\n{figures.table(header, rows)}\n\n{note} {figures._origin('load_test', found)}"


_TIMES = (("latency_s", "p50"), ("latency_s", "p99"), ("first_event_s", "p50"))
