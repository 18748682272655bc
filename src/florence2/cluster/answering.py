"""The engines of a labelling run on a cluster: each an actor that asks its model about chunks of pictures.

In: chunks of pictures from those who read them. Out: chunks of records. Several chunks are with an engine at the same time, and so many
pictures of whatever chunks are under way as the model takes, so that its rows stay full from one chunk to the next; nothing else forms
batches. A chunk whose process was lost is asked about again, one picture after the other. Knows nothing of files.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from florence2.background import in_background
from florence2.cluster.ledger import CHUNK, PICTURE
from florence2.cluster.reading import MOST_LOST, ReadPicture, closed, lost, opened
from florence2.errors import EngineClosed, Florence2Error
from florence2.labelling.answering import AnsweringModel
from florence2.labelling.asking import Outcome, Record, Unanswered, failed, outcome_of
from florence2.labelling.options import LabelOptions
from florence2.labelling.questions import Plan

if TYPE_CHECKING:
    import pyarrow

Load = Callable[[LabelOptions, int], tuple[AnsweringModel, str]]
"""Gives the model and the digest of its weights; called in the actor."""


def num_chunks(capacity: int) -> int:
    """How many chunks are with an engine at once: what fills it, one whose last pictures are under way, and one to go on with."""
    return -(-capacity // CHUNK) + 2


class Asker:
    """One engine.

    Args:
        ledger: the run's, an actor.
        load: gives the model.
        options: of the run.
        folder: the run's, where pictures are kept; None where they are not.
    """

    def __init__(self, ledger: Any, load: Load, options: LabelOptions, folder: Path | None) -> None:
        self._ledger, self._plan, self._folder = ledger, Plan(options), folder
        self._unanswered, self._lock, self._alone = Unanswered(), threading.Lock(), threading.Lock()
        self._model: AnsweringModel | None = None
        self._digest = ""
        try:
            self._model, self._digest = load(options, len(self._plan.first()))
        except Exception as error:
            self._fail(error)
            return
        self._free = threading.BoundedSemaphore(self._model.capacity)

    def __call__(self, chunk: pyarrow.Table) -> Iterator[pyarrow.Table]:
        """The records of a chunk of pictures."""
        import ray

        key, pictures = opened(chunk)
        num_begun, is_stopped = ray.get(self._ledger.begin.remote(key, is_engine=True))
        if is_stopped or self._model is None:
            return
        records = self._together(pictures) if num_begun == 1 else list(self._one_by_one(pictures))
        self._ledger.answer.remote(key, len(records))
        if len(records) < len(pictures):  # the run has ended
            key = f"{key} in part"
        yield closed(key, [json.dumps(record).encode("ascii") for record in records], digest=self._digest)

    def _together(self, pictures: Sequence[ReadPicture]) -> list[Record]:
        """The records of pictures that are asked about at the same time; without those that the run ends with."""
        under_way: list[Future[Outcome]] = []
        for picture in pictures:
            self._free.acquire()
            asking = in_background("florence2-label", partial(self._outcome, picture))
            asking.add_done_callback(lambda _: self._free.release())
            under_way.append(asking)
        return [outcome.record for asking in under_way if (outcome := self._settled(asking)) is not None]

    def _one_by_one(self, pictures: Sequence[ReadPicture]) -> Iterator[Record]:
        """The same, one picture after the other; those that ended their process too often fail."""
        import ray

        for picture in pictures:
            with self._alone:
                key = f"{PICTURE}{picture.image.id}"
                num_begun, is_stopped = ray.get(self._ledger.begin.remote(key))
                if is_stopped:
                    return
                if num_begun > MOST_LOST:
                    yield failed(picture.image, lost(picture.image, "asked about"))
                    continue
                yield from self._together([picture])
                ray.get(self._ledger.end.remote(key))

    def _outcome(self, picture: ReadPicture) -> Outcome:
        """What becomes of one picture; runs in its thread."""
        if isinstance(picture.content, Florence2Error):
            return Outcome(failed(picture.image, picture.content))
        assert self._model is not None
        return outcome_of(picture.image, picture.content, picture.file, self._folder, self._model, self._plan)

    def _settled(self, asking: Future[Outcome]) -> Outcome | None:
        """The outcome of a picture; None where it ends the run."""
        try:
            outcome = asking.result()
        except Exception as error:
            self._fail(error)
            return None
        with self._lock:
            breakdown = self._unanswered.breakdown(outcome)
        if breakdown is not None:
            self._fail(breakdown)
        return outcome

    def _fail(self, error: Exception) -> None:
        """End the run."""
        import ray

        if isinstance(error, EngineClosed):  # in this process nothing will be answered any more, and a new one begins anew
            os._exit(1)
        ray.get(self._ledger.fail.remote(error))
