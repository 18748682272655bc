"""What is read when Prometheus asks: models, engines, memory of processes, and what is under way.

Nothing here waits: an engine in a process of its own tells what its last heartbeat said. An engine that can't tell is left out, so that the
others are seen. Knows nothing of requests.
"""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from florence2.engine_process.supervisor import EngineProcess
from florence2.engine_stats import EngineStats
from florence2.server.http.logs import num_lines_dropped
from florence2.server.http.metric_table import READ
from florence2.server.http.state import ServerState
from florence2.server.inference.models import LoadedModel, Models

logger = logging.getLogger(__name__)

_Values = defaultdict[str, dict[tuple[str, ...], float]]  # by the name of the metric and the values of its labels

OF_STATS = {
    "florence2_model_memory_bytes": "memory_bytes",
    "florence2_requests_running": "num_running",
    "florence2_requests_waiting": "num_waiting",
    "florence2_waiting_bytes": "waiting_bytes",
    "florence2_rows": "num_rows",
    "florence2_rows_max": "max_rows",
    "florence2_image_cache_bytes": "image_cache_bytes",
    "florence2_image_cache_hits_total": "image_cache_hits",
    "florence2_image_cache_misses_total": "image_cache_misses",
    "florence2_engine_steps_total": "num_steps",
    "florence2_engine_busy_seconds_total": "busy_s",
    "florence2_engine_pass_age_seconds": "pass_age_s",
}
"""The metrics of each model, with the attributes of ``EngineStats`` that they show."""

OF_ENGINES = frozenset(
    {*OF_STATS, *("florence2_models_loaded", "florence2_model_load_seconds", "florence2_engine_up", "florence2_engine_restarts_total")}
)
"""Metrics of models and of what computes them."""


class Gauges(Collector):
    """The metrics of ``metric_table.READ``.

    Args:
        server: whose they are.
    """

    def __init__(self, server: ServerState) -> None:
        self._server = server

    def collect(self) -> Iterable[Metric]:
        """All of them as they are now."""
        server, values = self._server, _Values(dict)
        values["florence2_ready"][()] = server.is_ready
        values["florence2_requests_under_way"][()] = server.admission.num_slots
        values["florence2_body_bytes"][()] = server.admission.num_bytes
        values["florence2_log_lines_dropped_total"][()] = num_lines_dropped()
        values["florence2_spans_dropped_total"][()] = server.tracing.num_dropped if server.tracing else 0
        meter = server.accounts.meter if server.accounts else None
        values["florence2_usage_unwritten_total"][()] = meter.num_unwritten if meter else 0
        _note_engines(server.models, server.engine_process, values)
        _note_memory(server.engine_process, values)
        return [row.read(values[row.name]) for row in READ]


def measured_engines(models: Models, process: EngineProcess) -> list[Metric]:
    """The metrics of engines alone, for those who serve no HTTP."""
    values = _Values(dict)
    _note_engines(models, process, values)
    _note_memory(process, values)
    return [row.read(values[row.name]) for row in READ if row.name in values]


def _note_engines(models: Models, process: EngineProcess | None, values: _Values) -> None:
    values["florence2_models_loaded"][()] = len(models.loaded)
    values["florence2_engine_up"][()] = process is None or (process.is_running and process.does_answer)
    values["florence2_engine_restarts_total"][()] = 0 if process is None else process.num_restarts
    for model in models.loaded:
        values["florence2_model_load_seconds"][model.id,] = model.load_s
        if (stats := _stats_of(model)) is not None:
            for name, attribute in OF_STATS.items():
                values[name][model.id,] = getattr(stats, attribute)


def _note_memory(process: EngineProcess | None, values: _Values) -> None:
    for name, pid in {"server": os.getpid(), "engine": process and process.pid}.items():
        if pid is not None and (resident := _resident_bytes(pid)) is not None:
            values["florence2_process_memory_bytes"][name,] = resident


def _stats_of(model: LoadedModel) -> EngineStats | None:
    """What a model's engine says of itself; None: it can't, as it is ending or dead."""
    try:
        return model.engine.stats()
    except Exception:
        logger.debug("the engine of %s does not say what it does", model.id, exc_info=True)
        return None


def _resident_bytes(pid: int) -> int | None:
    """The memory that a process holds; None where the system does not say, or the process is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
