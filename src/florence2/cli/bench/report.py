"""The result of a load test for people: tables of loads, questions and errors, and lines on what stands behind them.

In: the figures of each run. Out: lines on standard output. Knows nothing of measuring.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from florence2.cli.tables import aligned, print_coloured
from florence2.console import is_interactive, shown

_LATENCIES = ("p50", "p90", "p95", "p99", "max")


def print_report(result: Mapping[str, Any]) -> None:
    """Print the tables of all runs."""
    runs = result["runs"]
    _print_table(_header(runs[0], "LOAD"), [_row(_load(run), run) for run in runs])
    if len(runs) == 1 and len(runs[0]["by_question"]) > 1:
        print()
        _print_table(_header(runs[0], "QUESTION"), [_row(name, one) for name, one in runs[0]["by_question"].items()])
    for block in (_streams(runs), _errors(runs)):
        if block:
            print()
            _print_table(*block)
    print()
    for line in _lines(result):
        print(line)
    sys.stdout.flush()


def seconds(value: float | None) -> str:
    """A time for people; nothing for None."""
    if value is None:
        return ""
    return f"{value * 1000:.0f} ms" if value < 0.9995 else f"{value:.2f} s"


def load_line(run: Mapping[str, Any]) -> str:
    """A run as one line, while others are still to come."""
    latency = run["latency_s"] or {}
    counts = ", ".join(f"{run[name]} {name}" for name in ("answered", "refused", "failed") if run[name] or name == "answered")
    return f"{_load(run)}: {counts}, p50 {seconds(latency.get('p50')) or '-'}, p99 {seconds(latency.get('p99')) or '-'}"


def _print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if is_interactive(sys.stdout):
        print_coloured(header, rows, bold=range(len(rows)), unbroken=header)
    else:
        for line in aligned([header, *rows]):
            print(line)


def _header(run: Mapping[str, Any], first: str) -> list[str]:
    good = [f"WITHIN {run['goodput']['target_s']:g} S", "GOOD/S"] if run["goodput"] else []
    return [first, "SENT", "ANSWERED", "REFUSED", "FAILED", *(name.upper() for name in _LATENCIES), "ANSWERS/S", *good]


def _row(name: str, run: Mapping[str, Any]) -> list[str]:
    latency = run["latency_s"] or {}
    goodput = run["goodput"]
    good = [f"{100 * goodput['share']:.1f} %", f"{goodput['answers_per_s']:.2f}"] if goodput else []
    counts = [str(run[key]) for key in ("sent", "answered", "refused", "failed")]
    return [shown(name), *counts, *(seconds(latency.get(key)) for key in _LATENCIES), f"{run['answers_per_s']:.2f}", *good]


def _load(run: Mapping[str, Any]) -> str:
    (kind, value), *_ = run["load"].items()
    return f"{value:g}/s" if kind == "rate" else f"{value:g} at once"


def _streams(runs: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]] | None:
    """The times of streamed answers."""
    rows = []
    for run in runs:
        for key, what in (("first_event_s", "first event"), ("between_events_s", "between events")):
            if run[key]:
                rows.append([_load(run), what, *(seconds(run[key][name]) for name in _LATENCIES)])
    return (["LOAD", "STREAMS", *(name.upper() for name in _LATENCIES)], rows) if rows else None


def _errors(runs: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]] | None:
    """What was refused and what failed."""
    rows = [[_load(run), str(one["count"]), one["error"], shown(one["example"] or "")] for run in runs for one in run["errors"]]
    return (["LOAD", "COUNT", "ERROR", "THE FIRST ONE SAYS"], rows) if rows else None


def _lines(result: Mapping[str, Any]) -> Iterator[str]:
    """What else there is to know."""
    runs = result["runs"]
    for run in runs:
        prefix = "" if len(runs) == 1 else f"{_load(run)}: "
        if run["tokens_per_s"] is not None:
            yield f"{prefix}{run['tokens_per_s']:.1f} tokens of answers a second"
        if run["retry_after_s"]:
            wait = run["retry_after_s"]
            yield f"{prefix}refusals ask to wait {wait['min']:g} to {wait['max']:g} s (Retry-After)"
        if run["unfinished"]:
            yield f"{prefix}{run['unfinished']} requests were not waited for"
        lag, loop = run["generator"]["send_lag_s"], run["generator"]["event_loop_lag_s"]
        parts = [f"{what} p99 {seconds(one['p99'])}" for what, one in (("sent late by", lag), ("event loop late by", loop)) if one]
        if parts:
            yield f"{prefix}the generator: {', '.join(parts)}"
        for warning in run["warnings"]:
            yield f"{prefix}NOT TO BE TRUSTED: {warning}"
    if len(result["settings"]["loads"]) > 1:
        best = result["kept_up_with"]
        yield "the server kept up with none of these loads" if best is None else f"the server kept up with up to {_load({'load': best})}"
