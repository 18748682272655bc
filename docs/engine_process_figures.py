"""Tables of the engine's process: what its boundary costs, and what becomes of requests when it is killed."""

from __future__ import annotations

from typing import Any

from docs import figures as pages
from docs.figures import table

_WAYS = {"in_process": "in the server", "own_process": "own process"}


def engine_process() -> str:
    """Latency and throughput both ways, and memory."""
    found = pages._result("engine_process")
    if found is None:
        return pages._unmeasured("engine_process")
    figures = found["figures"]
    sizes = {name: one for name, one in figures.items() if name != "memory_mb"}
    rows = [row for name, one in sizes.items() for row in _rows(name.replace("_", " "), one)]
    parts = {way: ", ".join(f"{name} {value:.0f} MB" for name, value in one.items()) for way, one in figures["memory_mb"].items()}
    memory = "; ".join(f"{_WAYS[way]}: {one}" for way, one in parts.items())
    added = ", ".join(f"{one['one_client_added_ms_p50']:.1f} ms ({name.replace('_', ' ')})" for name, one in sizes.items())
    return (
        f"{table(('JPEGs', 'Clients', 'Models run in', 'p50 ms', 'p99 ms', 'Requests a second'), rows)}\n\n"
        f"Added at p50, over pairs of requests: {added}. Memory: {memory}. {pages._origin('engine_process', found)}"
    )


def _rows(size: str, figures: dict[str, Any]) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = [(size, 1, _WAYS[way], one["p50"], one["p99"], "") for way, one in figures["one_client_ms"].items()]
    for name, ways in figures.items():
        if name.endswith("_clients"):
            number = name.partition("_")[0]
            rows += [(size, number, _WAYS[way], one["p50"], one["p99"], one["requests_per_s"]) for way, one in ways.items()]
    return rows


def engine_kill() -> str:
    """How requests ended, and how long each kill was felt."""
    found = pages._result("engine_kill")
    if found is None:
        return pages._unmeasured("engine_kill")
    figures = found["figures"]
    rows = [
        (number, one["signal"], one["until_not_ready_s"], one["until_ready_s"], one["slowest_healthz_s"])
        for number, one in enumerate(figures["kills"], start=1)
    ]
    ended = ", ".join(f"{count} of {status}" for status, count in figures["by_status"].items())
    return (
        f"{table(('Kill', 'By', 'Not ready after s', 'Ready again after s', 'Slowest /healthz s'), rows)}\n\n"
        f"Sent {figures['sent']}, ended {figures['ended']}: {ended}. {pages._origin('engine_kill', found)}"
    )
