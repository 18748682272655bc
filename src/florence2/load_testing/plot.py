"""The picture of a load test: how latency, throughput and errors went over time, or from load to load.

In: the result of a test, as it is written as JSON. Out: a file of matplotlib's. A test of one load is drawn over time, one of several over
the loads, with the last that the server kept up with. Knows nothing of measuring.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from florence2.errors import InvalidOption
from florence2.extras import requires
from florence2.load_testing.load_test import last_kept_up

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SUFFIXES = (".png", ".svg", ".pdf")
DPI = 150
SIZE_INCHES = (8.0, 7.0)
_WIDE = 8  # the largest load against the smallest, from where on loads stand as far apart as their ratios
# Colours that people who confuse red and green can tell apart.
_P50, _P90, _P99, _ASKED, _BAD, _GOOD, _INK = "#56B4E9", "#0072B2", "#D55E00", "#999999", "#D55E00", "#009E73", "#1A1A1A"
_LATENCIES = (("p50", _P50), ("p90", _P90), ("p99", _P99))


def check_plot(path: Path) -> None:
    """Refuse a plot that can't be drawn, before anything is measured.

    Raises:
        InvalidOption: the file's kind is none of those that are drawn.
        MissingExtra: matplotlib is not installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InvalidOption(f"--plot must be a file that ends in {', '.join(SUFFIXES)}; got {str(path)!r}", field="plot")
    with requires("bench", "--plot"):
        import matplotlib.figure  # noqa: F401


def draw(result: Mapping[str, Any], file: BinaryIO, kind: str = "png") -> None:
    """Draw a result.

    Args:
        result: of a test, with at least one run.
        file: where to.
        kind: ``png``, ``svg`` or ``pdf``.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    with requires("bench", "a plot"):
        from matplotlib.figure import Figure

    runs = result["runs"]
    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    axes = figure.subplots(2, 2)
    panels: Sequence[Callable[[Axes, Mapping[str, Any]], None]]
    if len(runs) == 1:
        panels = (_latency_over_time, _distribution, _answers_over_time, _in_flight_over_time)
        subject: Mapping[str, Any] = runs[0]
    else:
        panels = (_latency_over_load, _share_over_load, _answers_over_load, _first_events_over_load)
        subject = result
    for place, panel in zip(axes.flat, panels, strict=True):
        panel(place, subject)
        place.spines[["top", "right"]].set_visible(False)
        place.grid(axis="y", color="#E5E5E5", linewidth=0.8)
        place.set_axisbelow(True)
        if place.get_legend_handles_labels()[0]:
            place.legend(fontsize=8, frameon=False)
    figure.suptitle(_title(result), fontsize=10)
    figure.savefig(file, format=kind, dpi=DPI, metadata={"Software": None} if kind == "png" else None)


def _title(result: Mapping[str, Any]) -> str:
    server, settings = result["server"], result["settings"]
    names = ", ".join(f"{one['name']} x {one['weight']:g}" for one in settings["questions"])
    name = f"{server['name'] or server['url']}, {server['model']}"
    return f"{name}\n{names}"[:200]


# One load, over time


def _latency_over_time(axes: Axes, run: Mapping[str, Any]) -> None:
    seconds = [one for one in run["per_second"] if one["latency_s"]]
    for name, colour in reversed(_LATENCIES):
        values = [one["latency_s"][name] for one in seconds]
        axes.plot([one["second"] for one in seconds], values, color=colour, label=name, marker="." if len(seconds) < 40 else None)
    _target(axes, run)
    axes.set(title="Latency of requests due in each second", xlabel="time (s)", ylabel="latency (s)")
    axes.set_ylim(bottom=0)


def _distribution(axes: Axes, run: Mapping[str, Any]) -> None:
    quantiles = run["latency_quantiles_s"]
    axes.plot(quantiles, range(len(quantiles)), color=_P90)
    if run["goodput"]:
        axes.axvline(run["goodput"]["target_s"], color=_INK, linewidth=1, linestyle="--", label="target")
    axes.set(title="Distribution of latency", xlabel="latency (s)", ylabel="answered within (% of answers)", ylim=(0, 100))
    axes.set_xlim(left=0)


def _answers_over_time(axes: Axes, run: Mapping[str, Any]) -> None:
    seconds = run["per_second"]
    times = [one["second"] for one in seconds]
    for name, colour in (("sent", _ASKED), ("answered", _GOOD), ("refused", _P90), ("failed", _BAD)):
        values = [one[name] for one in seconds]
        if any(values):
            axes.plot(times, values, color=colour, label=name, linestyle="--" if name == "sent" else "-")
    axes.set(title="Requests in each second", xlabel="time (s)", ylabel="requests/s")
    axes.set_ylim(bottom=0)


def _in_flight_over_time(axes: Axes, run: Mapping[str, Any]) -> None:
    seconds = run["per_second"]
    axes.step([one["second"] for one in seconds], [one["in_flight"] for one in seconds], where="post", color=_P90)
    axes.set(title="Requests without an answer yet", xlabel="time (s)", ylabel="requests")
    axes.set_ylim(bottom=0)


# Several loads


def _latency_over_load(axes: Axes, result: Mapping[str, Any]) -> None:
    runs = [run for run in result["runs"] if run["latency_s"]]
    for name, colour in reversed(_LATENCIES):
        axes.plot(_loads(runs), [run["latency_s"][name] for run in runs], color=colour, marker="o", label=name)
    _target(axes, result["runs"][0])
    _over_load(axes, result, "Latency", "latency (s)")
    _in_powers(axes)


def _share_over_load(axes: Axes, result: Mapping[str, Any]) -> None:
    runs = result["runs"]
    shares = {name: [100 * run[name] / max(1, run["sent"]) for run in runs] for name in ("answered", "refused", "failed")}
    for (name, values), colour in zip(shares.items(), (_GOOD, _P90, _BAD), strict=True):
        if any(values):
            axes.plot(_loads(runs), values, color=colour, marker="o", label=name)
    if runs[0]["goodput"]:
        good = [100 * run["goodput"]["share"] for run in runs]
        axes.plot(_loads(runs), good, color=_INK, marker="o", linestyle="--", label=f"within {runs[0]['goodput']['target_s']:g} s")
    _over_load(axes, result, "What became of requests", "% of requests")
    axes.set_ylim(0, 105)


def _answers_over_load(axes: Axes, result: Mapping[str, Any]) -> None:
    runs = result["runs"]
    if "rate" in runs[0]["load"]:
        axes.plot(_loads(runs), _loads(runs), color=_ASKED, linestyle="--", label="asked")
    axes.plot(_loads(runs), [run["answers_per_s"] for run in runs], color=_GOOD, marker="o", label="answered")
    if runs[0]["goodput"]:
        good = [run["goodput"]["answers_per_s"] for run in runs]
        axes.plot(_loads(runs), good, color=_INK, marker="o", label=f"within {runs[0]['goodput']['target_s']:g} s")
    _over_load(axes, result, "Throughput", "answers/s")
    axes.set_ylim(bottom=0)


def _first_events_over_load(axes: Axes, result: Mapping[str, Any]) -> None:
    """The time to the first event, where answers were streamed; else what was in flight."""
    runs = [run for run in result["runs"] if run["first_event_s"]]
    if not runs:
        runs = result["runs"]
        axes.plot(_loads(runs), [run["generator"]["most_in_flight"] for run in runs], color=_P90, marker="o")
        _over_load(axes, result, "Most requests without an answer", "requests")
        axes.set_ylim(bottom=0)
        return
    for name, colour in reversed(_LATENCIES):
        axes.plot(_loads(runs), [run["first_event_s"][name] for run in runs], color=colour, marker="o", label=name)
    _over_load(axes, result, "Time to the first event", "time (s)")
    _in_powers(axes)


def _over_load(axes: Axes, result: Mapping[str, Any], title: str, unit: str) -> None:
    """What the panels of several loads have in common: the axis of loads, and the last that was kept up with."""
    is_rate = "rate" in result["runs"][0]["load"]
    axes.set(title=title, xlabel="load (requests/s)" if is_rate else "load (clients at once)", ylabel=unit)
    loads = _loads(result["runs"])
    if max(loads) >= _WIDE * min(loads):
        axes.set_xscale("log")
        axes.set_xticks(loads, [f"{load:g}" for load in loads])
        axes.set_xticks([], minor=True)
    else:
        axes.set_xlim(left=0)
    best = last_kept_up(result["runs"])
    if best is not None:
        axes.axvline(_loads([best])[0], color=_ASKED, linewidth=1, label="last load kept up with")


def _in_powers(axes: Axes) -> None:
    """Let times be shown by their powers of ten, written as numbers."""
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")


def _target(axes: Axes, run: Mapping[str, Any]) -> None:
    if run["goodput"]:
        axes.axhline(run["goodput"]["target_s"], color=_INK, linewidth=1, linestyle="--", label="target")


def _loads(runs: Sequence[Mapping[str, Any]]) -> list[float]:
    return [next(iter(run["load"].values())) for run in runs]
