"""What an engine is doing and holds, as plain numbers that travel between processes. Knows nothing of models, threads or metrics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineStats:
    """An engine at one moment.

    Attributes:
        num_running: Requests that take part in the engine's steps.
        num_waiting: Requests that are queued, or being encoded.
        num_rows: Rows (beams) of a step, over all running requests.
        max_rows: The most rows of a step.
        waiting_bytes: Memory that the pictures of waiting requests take.
        image_cache_bytes: Memory that encoded images take which are kept for the next prompt about them.
        image_cache_hits: Pictures, since the start, that were known already when they were asked about.
        image_cache_misses: Pictures, since the start, that were new.
        memory_bytes: Memory of the weights, of the decoder's cache as far as it was ever written to, and of the kept images.
        pass_age_s: How long the pass under way has lasted; 0.0 when the engine is idle.
        num_steps: Decoder steps since the start.
        busy_s: Seconds, since the start, in which the engine has worked, the pass under way included.
    """

    num_running: int = 0
    num_waiting: int = 0
    num_rows: int = 0
    max_rows: int = 0
    waiting_bytes: int = 0
    image_cache_bytes: int = 0
    image_cache_hits: int = 0
    image_cache_misses: int = 0
    memory_bytes: int = 0
    pass_age_s: float = 0.0
    num_steps: int = 0
    busy_s: float = 0.0
