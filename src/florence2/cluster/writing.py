"""The writers of a labelling run on a cluster: each an actor that gathers records of many chunks and writes them as parts.

In: chunks of records from engines. Out: a Parquet file in the run's folder for about a thousand pictures, or for what came within twenty
seconds, so that a run that is killed loses no more than that and leaves no heap of tiny files. A chunk's call returns when its records are
written, so that one whose writer was lost is written by another one. Knows nothing of pictures.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple

from florence2.cluster.reading import opened
from florence2.labelling.asking import Record
from florence2.labelling.part_files import is_url
from florence2.labelling.parts import PartsFolder

if TYPE_CHECKING:
    import pyarrow

NUM_RECORDS = 1000
"""Of a part; more come together only where they came at the same time."""
NUM_CHUNKS = 80
"""So many wait at most for their part, which is enough for one."""
LONGEST_S = 20.0
_LOOK_S = 0.5
_PAUSES_S = (1.0, 4.0, 15.0)


class _Waiting(NamedTuple):
    """A chunk that is to be written."""

    key: str
    records: Sequence[Record]
    digest: str
    written: Future[None]


class Writer:
    """One writer.

    Args:
        ledger: the run's, an actor.
        parts: where to write.
        num_records: of a part.
    """

    def __init__(self, ledger: Any, parts: PartsFolder, num_records: int = NUM_RECORDS) -> None:
        self._ledger, self._parts, self._num_records = ledger, parts, num_records
        self._name = uuid.uuid4().hex
        self._waiting: list[_Waiting] = []
        self._num_waiting = self._num_received = 0
        self._since = 0.0
        self._changed = threading.Condition()
        threading.Thread(target=self._write, name="florence2-parts", daemon=True).start()

    def __call__(self, chunk: pyarrow.Table) -> Iterator[pyarrow.Table]:
        """Nothing, when the chunk is written."""
        key, lines = opened(chunk)
        records = [json.loads(line) for line in lines]
        one = _Waiting(key, records, chunk["digest"][0].as_py(), Future())
        with self._changed:
            self._since = self._since if self._waiting else time.monotonic()
            self._waiting.append(one)
            self._num_waiting += len(records)
            self._num_received += len(records)
            self._changed.notify()
        one.written.result()
        yield from ()

    def _write(self) -> None:
        """Write what has come, when it is enough or has waited for long."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._num_waiting >= self._num_records, timeout=_LOOK_S)
                if not self._waiting or not self._is_due():
                    continue
                due, self._waiting, self._num_waiting = self._waiting, [], 0
            self._write_part(due)

    def _is_due(self) -> bool:
        """Whether there is enough for a part, or no more will come."""
        import ray

        if self._num_waiting >= self._num_records or len(self._waiting) >= NUM_CHUNKS or time.monotonic() - self._since >= LONGEST_S:
            return True
        return ray.get(self._ledger.is_ending.remote(self._name, self._num_received))

    def _write_part(self, due: Sequence[_Waiting]) -> None:
        """Write the chunks that have waited, and let their calls return; where that can't be, the run ends."""
        import ray

        try:
            for digest in dict.fromkeys(one.digest for one in due):
                self._try([record for one in due if one.digest == digest for record in one.records], digest)
            ray.get(self._ledger.write.remote([(one.key, _outcomes(one.records)) for one in due]))
        except Exception as error:
            ray.get(self._ledger.fail.remote(error))
        for one in due:
            one.written.set_result(None)

    def _try(self, records: Sequence[Record], digest: str) -> None:
        """Write records, again after a pause where a store does not answer.

        Raises:
            OSError: they can't be written.
        """
        for pause_s in _PAUSES_S:
            try:
                self._parts.write(records, model_digest=digest or None)
                return
            except OSError as error:
                if not is_url(self._parts.folder) or isinstance(error, PermissionError):
                    raise
                time.sleep(pause_s)
        self._parts.write(records, model_digest=digest or None)


def _outcomes(records: Sequence[Record]) -> list[Record]:
    """What the ledger has to know of records: how many there are, and what is wrong with some."""
    return [{name: record[name] for name in ("id", "error") if name in record} for record in records]
