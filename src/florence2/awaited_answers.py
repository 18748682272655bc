"""Answers of an engine, awaited in asyncio: whoever stops waiting takes what was queued out of the engine.

In: a thread's job that queues prompts, and the futures that it returns. Out: their results. Knows nothing of images, prompts and engines.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

from florence2.errors import EngineClosed

Answer = TypeVar("Answer")


async def results_of(queued: Sequence[Future[Answer]], advice: str) -> list[Answer]:
    """The results of all futures, in their order; if one fails or the caller stops waiting, the others are cancelled.

    Args:
        queued: the futures.
        advice: what the caller can do where the engine was closed before it had answered.

    Raises:
        EngineClosed: a future was cancelled, and none failed.
    """
    futures = [asyncio.wrap_future(future) for future in queued]
    try:
        await asyncio.wait(futures, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for future in futures:
            future.cancel()
    for future in futures:
        if future.done() and not future.cancelled() and (error := future.exception()) is not None:
            raise error
    if any(future.cancelled() for future in futures):
        raise EngineClosed(f"the model was closed before it had answered; {advice}")
    return [future.result() for future in futures]


@contextmanager
def cancelling_queued(job: Future[Any]) -> Iterator[None]:
    """If the caller stops waiting for a thread's job, the prompts that it queues are cancelled.

    That holds as well if the job has ended in the same turn of the event loop, so that its result is there and nobody takes it.
    """
    try:
        yield
    except asyncio.CancelledError:
        job.add_done_callback(_cancel_queued)
        raise


def _cancel_queued(job: Future[Any]) -> None:
    """Cancel the futures of prompts that a thread has queued for a caller who is gone."""
    if not job.cancelled() and job.exception() is None and isinstance(job.result(), list):
        for future in job.result():
            future.cancel()
