"""The figures of a run: percentiles, throughput, goodput, errors, by question and by second, and whether they can be trusted.

In: the measurements of one run. Out: a dictionary for JSON, times in seconds; the table and the plot are made from the same one. Latencies
are those of answered requests, from when each was due. Knows nothing of how they were measured.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from florence2.load_testing.measurement import Measurement
from florence2.load_testing.running import Run
from florence2.load_testing.sending import OWN_LIMIT

PERCENTILES = (50, 90, 95, 99)
KEPT_UP_SHARE = 0.95  # of the requests that are answered, at least
KEPT_UP_GROWTH = 0.1  # of the latency, in seconds a second, at most: a queue grows so where a tenth more comes in than is answered
_NOTABLE_LAG_S = 0.02
_LAG_SHARE = 0.1  # of the median latency
_FEWEST_FOR_GROWTH = 20


def figures(run: Run, target_s: float | None = None) -> dict[str, Any]:
    """All figures of a run.

    Args:
        run: what was measured.
        target_s: the latency that answers are to keep within; None for no goodput.
    """
    ended = sorted(run.measurements, key=lambda one: one.due_s)
    answered = [one for one in ended if one.outcome == "answered"]
    wall_s = max((one.ended_s for one in answered), default=run.sending_s)
    wall_s = max(wall_s, run.sending_s)
    counts = Counter(one.outcome for one in ended)
    found = {
        "load": {run.load.kind: run.load.value},
        "sending_s": _rounded(run.sending_s),
        "wall_s": _rounded(wall_s),
        "sent": len(ended),
        **{outcome: counts[outcome] for outcome in ("answered", "refused", "failed", "unfinished")},
        "is_cut_short": run.is_cut_short,
        "sent_per_s": _rounded(len(ended) / run.sending_s) if run.sending_s else 0.0,
        "answers_per_s": _rounded(len(answered) / wall_s) if wall_s else 0.0,
        "images_per_s": _rounded(len(answered) / wall_s) if wall_s else 0.0,
        "tokens_per_s": _tokens_per_s(answered, wall_s),
        **_times(answered),
        "goodput": _goodput(ended, wall_s, target_s),
        "errors": _errors(ended),
        "retry_after_s": _spread([one.retry_after_s for one in ended if one.retry_after_s is not None]),
        "latency_growth": _growth(answered, run.sending_s),
        "by_question": _by_question(ended, wall_s, target_s),
        "per_second": _per_second(ended),
        "latency_quantiles_s": _quantiles(answered),
        "generator": _generator(run, ended),
    }
    found["kept_up"] = _kept_up(found)
    found["warnings"] = _warnings(found)
    return found


def percentiles(values: Iterable[float]) -> dict[str, float] | None:
    """p50, p90, p95, p99, mean and max; None of nothing."""
    array = np.fromiter(values, dtype=np.float64)
    if not array.size:
        return None
    found = {f"p{one}": _rounded(value) for one, value in zip(PERCENTILES, np.percentile(array, PERCENTILES), strict=True)}
    return {**found, "mean": _rounded(array.mean()), "max": _rounded(array.max())}


def raw(run: Run) -> list[dict[str, Any]]:
    """Each request by itself, in the order in which they were due."""
    names = ("name", "due_s", "sent_s", "first_event_s", "ended_s", "outcome", "status", "error", "retry_after_s", "num_tokens")
    ordered = sorted(run.measurements, key=lambda one: one.due_s)
    return [{name: _rounded(value) if isinstance(value := getattr(one, name), float) else value for name in names} for one in ordered]


def _times(answered: Sequence[Measurement]) -> dict[str, Any]:
    """The percentiles of latency, of the time to the first event, and of the times between events."""
    return {
        "latency_s": percentiles(one.latency_s for one in answered),
        "first_event_s": percentiles(one.first_event_s - one.due_s for one in answered if one.first_event_s is not None),
        "between_events_s": percentiles(gap for one in answered for gap in one.gaps_s),
    }


def _goodput(ended: Sequence[Measurement], wall_s: float, target_s: float | None) -> dict[str, float] | None:
    """The answers within the target: a second, and as a share of all requests, those that were refused or failed among them."""
    if target_s is None:
        return None
    num_good = sum(one.outcome == "answered" and one.latency_s <= target_s for one in ended)
    num_all = sum(one.outcome != "unfinished" for one in ended)
    share = num_good / num_all if num_all else 0.0
    return {"target_s": target_s, "answers_per_s": _rounded(num_good / wall_s) if wall_s else 0.0, "share": _rounded(share)}


def _errors(ended: Sequence[Measurement]) -> list[dict[str, Any]]:
    """Each kind of refusal and failure: how many, and what the first one said."""
    kinds: dict[str, list[Measurement]] = defaultdict(list)
    for one in ended:
        if one.error is not None:
            kinds[one.error].append(one)
    ordered = sorted(kinds.items(), key=lambda kind: -len(kind[1]))
    return [{"error": name, "outcome": found[0].outcome, "count": len(found), "example": found[0].message} for name, found in ordered]


def _by_question(ended: Sequence[Measurement], wall_s: float, target_s: float | None) -> dict[str, Any]:
    named: dict[str, list[Measurement]] = defaultdict(list)
    for one in ended:
        named[one.name].append(one)
    return {name: _one_question(found, wall_s, target_s) for name, found in sorted(named.items())}


def _one_question(ended: Sequence[Measurement], wall_s: float, target_s: float | None) -> dict[str, Any]:
    answered = [one for one in ended if one.outcome == "answered"]
    counts = Counter(one.outcome for one in ended)
    return {
        "sent": len(ended),
        **{outcome: counts[outcome] for outcome in ("answered", "refused", "failed", "unfinished")},
        "answers_per_s": _rounded(len(answered) / wall_s) if wall_s else 0.0,
        "tokens_per_s": _tokens_per_s(answered, wall_s),
        **_times(answered),
        "goodput": _goodput(ended, wall_s, target_s),
    }


def _per_second(ended: Sequence[Measurement]) -> list[dict[str, Any]]:
    """What happened in each second: requests by when they were due, ends by when they ended, latencies of those that were due in it."""
    num_seconds = int(max((one.ended_s for one in ended), default=0.0)) + 1 if ended else 0
    seconds: list[dict[str, Any]] = [
        {"second": second, "sent": 0, "answered": 0, "refused": 0, "failed": 0} for second in range(num_seconds)
    ]
    latencies: list[list[float]] = [[] for _ in seconds]
    for one in ended:
        seconds[int(one.due_s)]["sent"] += 1
        if one.outcome != "unfinished":
            seconds[int(one.ended_s)][one.outcome] += 1
        if one.outcome == "answered":
            latencies[int(one.due_s)].append(one.latency_s)
    in_flight = 0
    for second, found in zip(seconds, latencies, strict=True):
        in_flight += second["sent"] - second["answered"] - second["refused"] - second["failed"]
        second["in_flight"] = in_flight
        second["latency_s"] = percentiles(found)
    return seconds


def _quantiles(answered: Sequence[Measurement]) -> list[float]:
    """The latencies at 0, 1, … 100 percent, for a curve."""
    if not answered:
        return []
    return [_rounded(value) for value in np.percentile([one.latency_s for one in answered], np.arange(101))]


def _tokens_per_s(answered: Sequence[Measurement], wall_s: float) -> float | None:
    counts = [one.num_tokens for one in answered if one.num_tokens is not None]
    return _rounded(sum(counts) / wall_s) if counts and wall_s else None


def _growth(answered: Sequence[Measurement], sending_s: float) -> float | None:
    """How many seconds the latency grows in a second, from the first half of the run to the second; None of a few requests."""
    halves = ([], [])
    for one in answered:
        halves[one.due_s >= sending_s / 2].append(one.latency_s)
    if min(map(len, halves)) < _FEWEST_FOR_GROWTH or not sending_s:
        return None
    return _rounded(float(np.mean(halves[1]) - np.mean(halves[0])) / (sending_s / 2))


def _generator(run: Run, ended: Sequence[Measurement]) -> dict[str, Any]:
    """How late the generator was: with each request, and with what its event loop had to do."""
    lags = percentiles(one.lag_s for one in ended) if run.load.kind == "rate" else None
    return {
        "send_lag_s": lags,
        "event_loop_lag_s": percentiles(run.delays_s),
        "own_limits": sum(one.error == OWN_LIMIT for one in ended),
        "most_in_flight": _most_in_flight(ended),
    }


def _most_in_flight(ended: Sequence[Measurement]) -> int:
    """The most requests that were under way at once."""
    changes = sorted([(one.sent_s, 1) for one in ended] + [(one.ended_s, -1) for one in ended])
    return int(np.cumsum([change for _, change in changes]).max()) if changes else 0


def _kept_up(found: dict[str, Any]) -> bool:
    """Whether the server answered as much as it was asked: nearly all requests, with a latency that does not grow."""
    num_ended = found["sent"] - found["unfinished"]
    return found["answered"] >= KEPT_UP_SHARE * num_ended > 0 and (found["latency_growth"] or 0.0) < KEPT_UP_GROWTH


def _warnings(found: dict[str, Any]) -> list[str]:
    """What makes the figures those of something else than the server."""
    generator, latency = found["generator"], found["latency_s"]
    allowed_s = max(_NOTABLE_LAG_S, _LAG_SHARE * (latency["p50"] if latency else 0.0))
    said = []
    for lag, what in ((generator["send_lag_s"], "sent requests late"), (generator["event_loop_lag_s"], "was held up")):
        if lag is not None and lag["p99"] > allowed_s:
            said.append(
                f"the generator {what}: by {lag['p99'] * 1000:.0f} ms at its 99th percentile, {lag['max'] * 1000:.0f} ms at most; "
                "the latencies are longer than the server's. Run it on a machine of its own, or at a lower rate"
            )
    if generator["own_limits"]:
        said.append(
            f"{generator['own_limits']} requests failed for want of connections on this machine, not on the server; raise the limit on "
            "open files (ulimit -n), or ask less at once"
        )
    return said


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    """The smallest, the median and the largest; None of nothing."""
    if not values:
        return None
    return {"min": _rounded(min(values)), "p50": _rounded(float(np.median(values))), "max": _rounded(max(values))}


def _rounded(value: float) -> float:
    return round(float(value), 6)
