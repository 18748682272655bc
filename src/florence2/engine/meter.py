"""What the engine's passes cost, divided among the requests that took part.

A pass is what the engine's thread does between two looks at its queue: it encodes new requests, takes one step, and answers. The meter
follows the clock through it; what a step takes is counted once, as the seconds of a row, and a request's share is the difference between
two readings. So a step costs the same few clock readings with one request as with a hundred. Written by the engine's thread alone; the
counts may be read by any.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch

from florence2.timing import Timing

clock = time.perf_counter
Mark = float | torch.cuda.Event


@dataclass
class Stopwatch:
    """The times of one request so far; moments by ``clock``.

    Attributes:
        queued_at: when it was submitted.
        taken_at: when a pass began to encode it.
        admitted_at: when it could take part in steps.
        stepped_at: when its last step had ended.
        first_token_at: when the first token that the model has chosen was decided; None before.
        row_s: the meter's reading when it was admitted.
        vision_s, prefill_s, parse_s: as in ``Timing``.
        compute_s: its share so far of everything but steps.
    """

    queued_at: float = 0.0
    taken_at: float = 0.0
    admitted_at: float = 0.0
    stepped_at: float = 0.0
    first_token_at: float | None = None
    row_s: float = 0.0
    vision_s: float = 0.0
    prefill_s: float = 0.0
    parse_s: float = 0.0
    compute_s: float = 0.0

    def timing(self, answered_at: float) -> Timing:
        """All of it, of a request that was answered at this moment."""
        first = self.stepped_at if self.first_token_at is None else self.first_token_at
        return Timing(
            queue_s=self.taken_at - self.queued_at,
            vision_s=self.vision_s,
            prefill_s=self.prefill_s,
            decode_s=max(self.stepped_at - self.admitted_at, 0.0),
            parse_s=self.parse_s,
            first_token_s=first - self.queued_at,
            total_s=answered_at - self.queued_at,
            compute_s=self.compute_s,
        )


class Meter:
    """Follows the passes of one engine.

    Args:
        device: of the model. A GPU works on after the thread has handed work to it, so its own clock measures what it is given.

    Attributes:
        num_steps: steps so far.
        busy_s: seconds in passes that have ended.
        row_s: what a row would have cost that had taken part in every step so far.
    """

    def __init__(self, device: torch.device) -> None:
        self.num_steps = 0
        self.busy_s = 0.0
        self.row_s = 0.0
        self._has_own_clock = device.type == "cuda"
        self._began_at: float | None = None
        self._divided_to = 0.0  # the pass up to this moment has been divided
        self._left_s = 0.0  # of earlier passes, not divided yet: what came after their steps

    @property
    def pass_age_s(self) -> float:
        """How long the pass under way has lasted; 0.0 between passes."""
        began_at = self._began_at
        return 0.0 if began_at is None else max(clock() - began_at, 0.0)

    def begin_pass(self) -> None:
        """Note that a pass begins."""
        self._began_at = self._divided_to = clock()

    def end_pass(self) -> None:
        """Note that the pass has ended, however it went."""
        now = clock()
        self.busy_s += now - (self._began_at or now)
        self._left_s += now - self._divided_to
        self._began_at = None

    def divide_step(self, num_rows: int, alone_s: float) -> float:
        """Divide what the pass has taken since the last division among the rows of its step.

        Args:
            num_rows: the rows of the step.
            alone_s: the part of it that newcomers bear alone.

        Returns:
            The moment up to which the pass is divided now.
        """
        now = clock()
        self.row_s += max(now - self._divided_to + self._left_s - alone_s, 0.0) / num_rows
        self._divided_to, self._left_s = now, 0.0
        self.num_steps += 1
        return now

    def bear_alone(self, seconds: float) -> None:
        """Note that one request bears so many seconds after the last division alone."""
        self._divided_to += seconds

    def forget_rest(self) -> None:
        """Divide what the pass has taken since the last division among nobody: those who took part have failed."""
        self._divided_to, self._left_s = clock(), 0.0

    def mark(self) -> Mark:
        """A moment between two pieces of work that the device is given."""
        if not self._has_own_clock:
            return clock()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def between(start: Mark, end: Mark) -> float:
    """The seconds from one mark to another of the same device; of a GPU's only once it has reached both."""
    if isinstance(start, torch.cuda.Event) and isinstance(end, torch.cuda.Event):
        return start.elapsed_time(end) / 1000
    return cast("float", end) - cast("float", start)


class Entry:
    """Requests on their way into the batch, and what that takes.

    Args:
        requests: the stopwatches of those that enter, and what tells the images apart that are new; None for one that is encoded already.
        meter: the engine's.
    """

    def __init__(self, requests: Sequence[tuple[Stopwatch, int | None]], meter: Meter) -> None:
        self._requests = requests
        self._meter = meter
        self._began_at = clock()
        self._marks = [meter.mark()]

    def mark(self) -> None:
        """Note that the images are encoded, or at last that the prompts are, too."""
        self._marks.append(self._meter.mark())

    def divide(self) -> float:
        """Divide what it took among the requests, after the step that followed.

        Returns:
            The seconds that they bear alone.
        """
        start, encoded, admitted = self._marks
        vision_s, prefill_s = between(start, encoded), between(encoded, admitted)
        sharing = Counter(image for _, image in self._requests)
        num_images = len(sharing) - (None in sharing)
        for watch, image in self._requests:
            watch.taken_at, watch.admitted_at = self._began_at, self._began_at + vision_s + prefill_s
            watch.row_s = self._meter.row_s
            watch.vision_s = 0.0 if image is None else vision_s / num_images
            watch.prefill_s = prefill_s
            watch.compute_s = watch.vision_s / sharing[image] + prefill_s / len(self._requests)
        return vision_s + prefill_s if num_images else prefill_s
