"""What the engines of a replica do, as metrics of Ray.

In: the figures that the server of one machine shows under ``/metrics``. Out: the same under the same names, as Ray exports them: with
``ray_`` in front, and with the replica beside the model. Knows nothing of requests.
"""

from __future__ import annotations

from typing import Any

from ray.serve import metrics

from florence2.cluster.rows_asked import RowsAsked
from florence2.engine_process.supervisor import EngineProcess
from florence2.server.http.gauges import OF_STATS
from florence2.server.http.metric_table import READ, MetricRow
from florence2.server.inference.models import Models

_OTHERS = ("florence2_models_loaded", "florence2_engine_up", "florence2_engine_restarts_total")
ROWS_ASKED = MetricRow("florence2_rows_asked", "gauge", "Rows of the requests at a replica: by them, replicas come and go.")
SHOWN = (*(row for row in READ if row.name in OF_STATS or row.name in _OTHERS), ROWS_ASKED)
"""The metrics; their labels are those of one machine and ``application``, ``deployment`` and ``replica``."""


class Figures:
    """The metrics of one replica; made inside of it.

    Args:
        models: the loaded models.
        process: the process of the engines.
        rows: what requests ask for.
    """

    def __init__(self, models: Models, process: EngineProcess, rows: RowsAsked) -> None:
        self._models, self._process, self._rows = models, process, rows
        self._shown: dict[str, Any] = {row.name: _made(row) for row in SHOWN}
        self._counted: dict[tuple[str, str], float] = {}

    def show(self) -> None:
        """Give Ray the present values."""
        self._show("florence2_models_loaded", len(self._models.loaded))
        self._show("florence2_engine_up", self._process.is_running and self._process.does_answer)
        self._show("florence2_engine_restarts_total", self._process.num_restarts)
        self._show(ROWS_ASKED.name, self._rows.num_rows)
        stats = {model.id: model.engine.stats() for model in self._models.loaded}
        for model_id, of_model in stats.items():
            for name, attribute in OF_STATS.items():
                self._show(name, getattr(of_model, attribute), model_id)
        for name, model_id in [key for key in self._counted if key[1] and key[1] not in stats]:
            del self._counted[name, model_id]
            if isinstance(self._shown[name], metrics.Gauge):
                self._shown[name].set(0, tags={"model": model_id})  # Ray goes on to show the last value of a model that has left

    def _show(self, name: str, value: float, model_id: str = "") -> None:
        metric, tags = self._shown[name], {"model": model_id} if model_id else {}
        before = self._counted.get((name, model_id), 0.0)
        self._counted[name, model_id] = value
        if isinstance(metric, metrics.Gauge):
            metric.set(float(value), tags=tags)
        elif value != before:
            metric.inc(value - before if value > before else value, tags=tags)  # an engine that is new counts from zero


def _made(row: MetricRow) -> Any:
    kind = metrics.Counter if row.kind == "counter" else metrics.Gauge
    return kind(row.name.removesuffix("_total"), description=row.text, tag_keys=row.labels)  # type: ignore[arg-type]  # Ray appends ``_total``
