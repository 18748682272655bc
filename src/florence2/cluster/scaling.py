"""How many engine replicas there are: as many as the rows asked for need.

In: what Serve's controller knows of the replicas (the rows and requests that each has, requests that no replica has taken yet). Out: the
number of replicas, which Serve bounds and delays. A request with three beams, or of three tiles, counts three rows. Serve pickles
``rows_policy`` by value and calls it ten times a second in its controller: this module imports nothing of this package, and nothing heavy.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingConfig, AutoscalingContext

ROWS, REQUESTS = "rows", "requests"
"""What a replica's ``record_autoscaling_stats`` returns: the rows that its requests ask for, and how many requests those are."""

LOOK_BACK_S = 3.0  # the figures are means of so long: shorter than the delay, so that a burst that is shorter as well adds no replica
REPORT_S = 1.0  # replicas and handles report so often; by default every ten seconds, which would be added to the delay
_RATIO, _FALLEN = "rows_a_request", "fallen"


def autoscaling(
    min_replicas: int, max_replicas: int, target_rows: int, *, upscale_delay_s: float, downscale_delay_s: float
) -> AutoscalingConfig:
    """How Serve is to scale the deployment of the engines.

    Args:
        min_replicas: the fewest; 0: none while nobody asks.
        max_replicas: the most.
        target_rows: the rows that a replica is to have at most on average, below what its engine computes at once.
        upscale_delay_s: replicas are added once more are needed for so long.
        downscale_delay_s: replicas leave once fewer are needed for so long, as many as were never needed in that time.
    """
    from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

    with warnings.catch_warnings():  # of ``metrics_interval_s``, as long as what is to replace it has no effect (Ray 2.60)
        warnings.simplefilter("ignore", DeprecationWarning)
        return AutoscalingConfig(
            min_replicas=min_replicas,
            max_replicas=max_replicas,
            target_ongoing_requests=target_rows,
            upscale_delay_s=upscale_delay_s,
            downscale_delay_s=downscale_delay_s,
            metrics_interval_s=REPORT_S,
            look_back_period_s=LOOK_BACK_S,
            policy=AutoscalingPolicy(policy_function=rows_policy),
        )


def rows_policy(ctx: AutoscalingContext) -> tuple[int, dict[str, Any]]:
    """The number of replicas that the rows need now, and what the next call has to know.

    ``target_ongoing_requests`` of the deployment is the rows of a replica. Serve acts on the number once it has been above, or below, the
    present one for its delay; then the last number decides. Below the present one this is therefore the highest since it fell below: what
    was needed a moment ago is not taken away because of one quiet moment.
    """
    state, reported = ctx.policy_state, ctx.aggregated_metrics or {}
    rows, requests = (sum(reported.get(name, {}).values()) for name in (ROWS, REQUESTS))
    rows_a_request = rows / requests if requests >= 1 else state.get(_RATIO, 1.0)
    needed_rows = rows + ctx.total_queued_requests * rows_a_request
    target_rows: float = ctx.config.target_ongoing_requests  # type: ignore[union-attr]
    needed = math.ceil(round(needed_rows / target_rows, 6))
    present, now = ctx.target_num_replicas, ctx.current_time or 0.0
    if needed >= present:
        return needed, {_RATIO: rows_a_request}
    under, since, peak = state.get(_FALLEN, (None, now, 0))
    if under != present:
        since, peak = now, 0
    if now - since > LOOK_BACK_S:  # before that the means still hold what was before it fell
        peak = max(needed, peak)
    return max(needed, peak), {_RATIO: rows_a_request, _FALLEN: (present, since, peak)}
