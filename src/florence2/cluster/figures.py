"""What the engines of a replica do, as metrics of Ray.

In: the metrics of engines that a server shows under ``/metrics``. Out: the same under the same names, as Ray exports them from each
machine: with ``ray_`` in front, and with the replica beside the model. Knows nothing of requests.
"""

from __future__ import annotations

from typing import Any

from ray.serve import metrics

from florence2.cluster.rows_asked import RowsAsked
from florence2.engine_process.supervisor import EngineProcess
from florence2.server.http.gauges import OF_ENGINES, measured_engines
from florence2.server.http.metric_table import READ, MetricRow
from florence2.server.inference.models import Models

ROWS_ASKED = MetricRow("florence2_rows_asked", "gauge", "Rows of the requests at a replica: by them, replicas come and go.")
SHOWN = (*(row for row in READ if row.name in OF_ENGINES), ROWS_ASKED)
"""The metrics; their labels are those of one machine and ``application``, ``deployment`` and ``replica``."""

_Labels = tuple[tuple[str, str], ...]


class Figures:
    """The metrics of one replica; made inside of it.

    Args:
        models: the loaded models.
        process: the process of the engines.
        rows: what requests ask for.
    """

    def __init__(self, models: Models, process: EngineProcess, rows: RowsAsked) -> None:
        self._models, self._process, self._rows = models, process, rows
        self._metrics: dict[str, Any] = {row.name: _made(row) for row in SHOWN}
        self._shown: dict[tuple[str, _Labels], float] = {}

    def show(self) -> None:
        """Give Ray the present values."""
        values = self._values()
        for (name, labels), value in values.items():
            self._show(name, labels, value, self._shown.get((name, labels), 0.0))
        for name, labels in self._shown.keys() - values.keys():
            if isinstance(self._metrics[name], metrics.Gauge):
                self._metrics[name].set(0.0, tags=dict(labels))  # Ray goes on to show the last value of a model that has left
        self._shown = values

    def _values(self) -> dict[tuple[str, _Labels], float]:
        samples = [sample for family in measured_engines(self._models, self._process) for sample in family.samples]
        values = {(one.name, tuple(one.labels.items())): float(one.value) for one in samples if one.name in self._metrics}
        return {**values, (ROWS_ASKED.name, ()): float(self._rows.num_rows)}

    def _show(self, name: str, labels: _Labels, value: float, before: float) -> None:
        metric = self._metrics[name]
        if isinstance(metric, metrics.Gauge):
            metric.set(value, tags=dict(labels))
        elif value != before:
            metric.inc(value - before if value > before else value, tags=dict(labels))  # an engine that is new counts from zero


def _made(row: MetricRow) -> Any:
    kind = metrics.Counter if row.kind == "counter" else metrics.Gauge
    return kind(row.name.removesuffix("_total"), description=row.text, tag_keys=row.labels)  # type: ignore[arg-type]  # Ray appends ``_total``
