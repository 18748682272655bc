"""What a server under load was measured to do: ten minutes at twice its capacity, clients that hang up, an end under load."""

from __future__ import annotations

from typing import Any

from docs import figures as pages
from docs.figures import table


def under_load() -> str:
    """One row for each of the three, and where the figures come from."""
    rows: list[tuple[str, str]] = []
    origin = ""
    for name, describe in (("soak", _soak), ("hang_ups", _hang_ups), ("drain", _drain)):
        found = pages._result(name)
        if found is None:
            return pages._unmeasured(name)
        rows.append(describe(found["figures"]))
        origin = pages._origin(name, found)
    asked = "florence-2-demo, several tasks, a part of the answers streamed."
    others = "The first two: `soak.json` and `hang_ups.json` beside that of the third."
    return f"{table(('What', 'What became of it'), rows)}\n\n{asked} {others} {origin}"


def _soak(figures: dict[str, Any]) -> tuple[str, str]:
    accepted, healthz, memory = figures["accepted"], figures["healthz"], figures["memory_mb"]
    minutes = figures["num_sent"] / figures["sent_per_s"] / 60
    return (
        f"{minutes:.0f} minutes at twice the capacity: {figures['sent_per_s']:g} requests a second",
        f"{figures['num_sent']:,} sent, {figures['num_ended']:,} ended, {figures['num_lost']} lost: {_counts(figures['by_status'])}, "
        f"{figures['num_left_by_client']} left by their clients. Answers: p50 {accepted['p50_ms'] / 1000:.1f} s, "
        f"p99 {accepted['p99_ms'] / 1000:.1f} s. `/healthz`: p50 {healthz['p50_ms']:.0f} ms, p99 {healthz['p99_ms']:.0f} ms, "
        f"at most {healthz['max_ms'] / 1000:.1f} s. Memory of all processes: {memory['settled']} MB after two minutes, "
        f"{memory['end']} MB at the end",
    )


def _hang_ups(figures: dict[str, Any]) -> tuple[str, str]:
    after = figures["next_answer"]
    return (
        f"{figures['num_clients']} clients at once that hang up at random moments",
        f"{figures['num_hung_up']} hung up, others: {_counts(figures['others_by_status'])}. Slots, bytes and rows were all free "
        f"{figures['all_free_after_s']:g} s after the last one; the next request was answered ({after['status']}) in {after['ms']:.0f} ms",
    )


def _drain(figures: dict[str, Any]) -> tuple[str, str]:
    rounds = figures["rounds"]
    codes = sorted({one["exit_code"] for one in rounds})
    before, after = _summed(rounds, "sent_before"), _summed(rounds, "sent_after")
    longest = max(one["ended_after_s"] for one in rounds)
    return (
        f"SIGTERM in the middle of requests, {len(rounds)} times",
        f"Exit code {', '.join(map(str, codes))}, after {longest:.1f} s at most; {figures['num_lost']} accepted requests lost. "
        f"Sent before the signal: {_counts(before)}. After it: {_counts(after)}",
    )


def _summed(rounds: list[dict[str, Any]], name: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for one in rounds:
        for status, count in one[name].items():
            counts[status] = counts.get(status, 0) + count
    return counts


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} of {status}" for status, count in sorted(counts.items()))
