"""Counting what a request uses: its images are held against the quota of its key first, and noted when they are answered.

In: a request whose key is known. Out: what the inference service calls at its end. Knows no API.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.requests import Request

from florence2.server.accounts.key_info import KeyInfo
from florence2.server.accounts.totals import Record
from florence2.server.http.state import hold, state_of
from florence2.server.inference.request import Used


def metered(request: Request, num_images: int) -> Callable[[Used], None]:
    """What notes the usage of a request.

    Args:
        request: the request.
        num_images: how many it has.

    Raises:
        QuotaExceeded: its key has not so many left in this month.
    """
    accounts, key = state_of(request).accounts, request.scope["state"]["key"]
    if accounts is None or accounts.meter is None:
        return lambda _: None
    note = hold(request.scope, accounts.meter.reserve(key, num_images))
    return lambda used: note(_record(key, used))


def _record(key: KeyInfo, used: Used) -> Record:
    """What is kept of a request: sums, none of its contents."""
    results = [result for answer in used.answers for result in answer.results]
    usages = [result.usage for result in results if result.usage is not None]
    timings = [result.timing for result in results]
    return Record(
        at=int(time.time()),
        key_name=key.name,
        model=used.model_id,
        requests=int(bool(used.answers)),
        images=len(used.answers),
        prompt_tokens=sum(usage.num_prompt_tokens for usage in usages),
        answer_tokens=sum(usage.num_answer_tokens for usage in usages),
        compute_s=round(sum(timing.compute_s for timing in timings if timing is not None), 6),
        codes=tuple(error.code for error in used.errors),
    )
