"""Where the time of one answer went, and what it cost. Plain values; knows nothing of engines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Timing:
    """The times of one answer in an engine, in seconds.

    The stages follow each other and add up to ``total_s`` at most. ``compute_s`` is no stage: the engine works on many requests at once,
    and this is one request's share of that. The shares of all requests, failed and cancelled ones included, add up to the time in which
    the engine was busy.

    Attributes:
        queue_s: From ``submit`` until a pass of the engine has taken the request.
        vision_s: The pass of the vision tower, shared equally by the images of the pass; 0.0 for an image that was encoded already.
        prefill_s: Encoding the prompt, and preparing the decoder for it.
        decode_s: From then on to the end of the last step.
        parse_s: Reading the answer out of its tokens.
        first_token_s: From ``submit`` until the first token was decided that the model has chosen, streamed or not.
        total_s: From ``submit`` until the answer.
        compute_s: What the request cost: of each step its rows' share, of a pass of the tower its image's, of encoded prompts its own.
    """

    queue_s: float = 0.0
    vision_s: float = 0.0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    parse_s: float = 0.0
    first_token_s: float = 0.0
    total_s: float = 0.0
    compute_s: float = 0.0


def of_parts(timings: Sequence[Timing]) -> Timing:
    """The timing of an answer that was made of several: the stages of the part that came last, and what all of them cost."""
    return replace(max(timings, key=lambda timing: timing.total_s), compute_s=math.fsum(timing.compute_s for timing in timings))
