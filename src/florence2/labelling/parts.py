"""The parts of a labelling run that many workers write at once: Parquet files beside the journal of a single machine.

In: records, and where they are kept: ``DIR/.florence2/parts``, DIR a folder of this machine or a URL. Out: files that are whole, each under
a name of its own, so that a task that is done again overwrites nothing; and what they hold together. The same picture in two files counts
once: an answer wins over an error, the later over the earlier. Files that are damaged are named and passed over. Knows nothing of Ray.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from florence2.errors import DatasetError
from florence2.extras import requires
from florence2.inputs.folders import RUN_FOLDER
from florence2.labelling.answered import Answered, Gathered
from florence2.labelling.options import changes, differences, refused
from florence2.labelling.part_files import STALE_S, files_in
from florence2.labelling.part_rows import (
    PLACE_COLUMNS,
    VERSION,
    Heads,
    header_of,
    heads_of,
    is_header,
    part_schema,
    part_table,
    placed_records,
    records_of,
)

if TYPE_CHECKING:
    import pyarrow

    from florence2.labelling.asking import Record

__all__ = ["HEADER", "PartsFolder", "part_schema", "part_table", "parts_in", "records_of"]

HEADER = "_header.json"
"""The names of what is no part begin such that pyarrow, pandas, DuckDB and Ray pass them over."""
_ROWS_AT_ONCE = 1000
_BLOCK_BYTES = 2**20
_DAMAGED_SHOWN = 3
_PREFIX, _SUFFIX = "part-", ".parquet"


def parts_in(folder: str | os.PathLike[str]) -> PartsFolder:
    """The parts of a run.

    Args:
        folder: the run's, as ``--output`` names it: a path, or a URL such as ``s3://bucket/run``.
    """
    return PartsFolder(f"{os.fspath(folder).rstrip('/')}/{RUN_FOLDER}/parts")


class PartsFolder:
    """A folder of parts; it may be pickled, and used by many processes at once.

    Args:
        folder: its path or URL; it need not be there yet.

    Attributes:
        damaged: files that can't be read, each with the reason; of what was read so far.

    Raises:
        InvalidOption: the URL names no file system that is known.
        MissingExtra: a package is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = os.fspath(folder)
        self.damaged: dict[str, str] = {}
        self._files = files_in(self.folder)
        self._header: Mapping[str, Any] | None = None
        self._is_header_read = False
        self._run: int | None = None

    def __getstate__(self) -> dict[str, Any]:
        """All but the connection, which each process has of its own."""
        return {name: value for name, value in vars(self).items() if name != "_files"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._files = files_in(self.folder)

    @property
    def header(self) -> Mapping[str, Any] | None:
        """What was asked, and of which model, as in a journal; None where there is nothing yet.

        Raises:
            DatasetError: it was written by another version.
        """
        if not self._is_header_read:
            self._header, self._is_header_read = self._read_header(), True
        return self._header

    @property
    def is_begun(self) -> bool:
        """Whether there is a header or a part."""
        return any(name == HEADER or _is_part(name) for name in self._files.names())

    @property
    def notices(self) -> list[str]:
        """Lines on the parts that were passed over, as far as they were read."""
        shown = [f"passed over {name}, which is damaged: {why}" for name, why in list(self.damaged.items())[:_DAMAGED_SHOWN]]
        num_more = len(self.damaged) - len(shown)
        return shown + ([f"passed over {num_more} more such {'file' if num_more == 1 else 'files'}"] if num_more else [])

    def names(self) -> list[str]:
        """The names of its parts, in the order in which they count: the later one wins."""
        return list(filter(_is_part, self._files.names()))

    def begin(self, asked: Mapping[str, Any], model: str) -> None:
        """Begin to write, or go on: write the header, and have the parts to come count as later than those that are there.

        Args:
            asked: what decides the answers, as ``LabelOptions.asked``.
            model: the model's name.

        Raises:
            InvalidOption: something else was asked before.
        """
        names = self.names()
        before = self.header if names else None
        if before is not None and (changed := differences(before, asked, model)):
            raise refused(self.folder, changed)
        if before is None:
            self._header, self._is_header_read = {"version": VERSION, "asked": dict(asked), "model": model}, True
            self._files.write(HEADER, json.dumps(self._header, indent=1).encode("ascii") + b"\n")
        self._run = 1 + max(map(_run_of, names), default=0)

    def write(self, records: Sequence[Record], *, model_digest: str | None = None) -> str | None:
        """Write records as a file under a name of its own, whole or not at all, and return the name; None where there are none.

        Args:
            records: as ``asking`` makes them, one for each picture.
            model_digest: of the weights that answered.

        Raises:
            OSError: it can't be written, and nothing is.
            MissingExtra: ``pyarrow`` is not installed.
        """
        if not records:
            return None
        with requires("parquet", "a labelling run in Parquet"):
            import pyarrow as pa
            from pyarrow import parquet
        if self._run is None:
            self._run = max(map(_run_of, self.names()), default=1)
        header = self.header
        model = None if header is None else header.get("model")
        table = part_table(records, model=model, model_digest=model_digest, header=header)
        written = pa.BufferOutputStream()
        parquet.write_table(table, written, compression="zstd", row_group_size=5000)
        name = f"{_PREFIX}{self._run:05}-{time.time_ns():020}-{uuid.uuid4().hex[:12]}{_SUFFIX}"
        self._files.write(name, written.getvalue().to_pybytes())
        return name

    def records(self, name: str) -> Iterator[tuple[int, Record]]:
        """The records of a part, each with the number of its first row; none where it is damaged, which is noted, or gone.

        Raises:
            DatasetError: it can't be reached.
        """
        table = self._read(name, None)
        if table is not None:
            yield from placed_records(row for batch in table.to_batches(_ROWS_AT_ONCE) for row in batch.to_pylist())

    def heads(self, names: Sequence[str] | None = None) -> Iterator[tuple[str, Heads]]:
        """What parts say of their pictures without the answers, in the order in which they count.

        Args:
            names: which parts; None for all that are there.
        """
        for name in self.names() if names is None else names:
            table = self._read(name, PLACE_COLUMNS)
            if table is not None:
                try:
                    yield name, heads_of(table)
                except (ValueError, KeyError, TypeError) as error:
                    self.damaged[name] = f"it is no part of a labelling run: {error}"

    def done_ids(self) -> Answered:
        """The pictures that were labelled; 12 bytes for each in memory, and 12 more for a file that is known by its path too."""
        gathered = Gathered()
        for order, (_, heads) in enumerate(self.heads()):
            heads.gather(gathered, order)
        return gathered.answered()

    def failed_ids(self) -> list[str]:
        """The pictures that could not be labelled, each once, sorted."""
        done = self.done_ids()
        failed: set[str] = set()
        for _, heads in self.heads():
            ids = [name for name, is_failed in zip(heads.ids, heads.are_failed, strict=True) if is_failed]
            failed.update(name for name, is_done in zip(ids, done.contains(ids), strict=True) if not is_done)
        return sorted(failed)

    def forget(self) -> None:
        """Remove the header of a run that has no parts, so that anything may be asked."""
        if not self.names():
            self._files.remove(HEADER)
            self._is_header_read = False

    def clean(self, *, is_alone: bool = False) -> None:
        """Remove what writers that were killed have left.

        Args:
            is_alone: nobody else writes here now, so that all that is unfinished is left.
        """
        self._files.clean(0 if is_alone else STALE_S)

    def _read(self, name: str, columns: Sequence[str] | None) -> pyarrow.Table | None:
        """The table of a part; None where it is damaged, which is noted, or gone.

        Raises:
            DatasetError: it can't be reached.
        """
        with requires("parquet", "a labelling run in Parquet"):
            from pyarrow import ArrowException
            from pyarrow.parquet import ParquetFile
        header = self.header
        try:
            with self._files.open(name) as file:
                part = ParquetFile(file)
                _check(part.schema_arrow, header)
                return part.read(columns=None if columns is None else list(columns))
        except FileNotFoundError:
            return None
        except (ArrowException, ValueError) as error:
            self.damaged[name] = _line(error)
        except OSError as error:
            self._check_is_reached(name)  # or pyarrow can't unpack its pages
            self.damaged[name] = _line(error)
        return None

    def _check_is_reached(self, name: str) -> None:
        """Read all bytes of a file, whatever is in it.

        Raises:
            DatasetError: the disk or the network does not give them.
        """
        try:
            with self._files.open(name) as file:
                while file.read(_BLOCK_BYTES):
                    pass
        except OSError as error:
            raise DatasetError(f"{self.folder}/{name} can't be read: {error.strerror or _line(error)}") from error

    def _read_header(self) -> Mapping[str, Any] | None:
        """The header, or that of the first part which has one."""
        try:
            with self._files.open(HEADER) as file:
                header = json.loads(file.read())
        except (FileNotFoundError, ValueError):
            return self._header_of_parts()
        if not is_header(header):
            raise DatasetError(
                f"{self.folder}/{HEADER} can't be read by this version of florence2; use the version that wrote it, or a new --output"
            )
        return header

    def _header_of_parts(self) -> Mapping[str, Any] | None:
        names = self.names()
        if not names:
            return None  # as in most runs, whose users need no pyarrow
        with requires("parquet", "a labelling run in Parquet"):
            from pyarrow import ArrowException
            from pyarrow.parquet import read_schema
        for name in names:
            with suppress(ArrowException, OSError, ValueError), self._files.open(name) as file:
                if (header := header_of(read_schema(file))) is not None:
                    return header
        return None


def _check(schema: pyarrow.Schema, header: Mapping[str, Any] | None) -> None:
    """Refuse a file that is none of ours, or has answers to something else.

    Raises:
        ValueError: it is, or has.
    """
    missing = [name for name in part_schema().names if name not in schema.names]
    if missing:
        raise ValueError(f"it is no part of a labelling run: it has no column {', '.join(missing[:3])}")
    own = header_of(schema)
    if own is not None and header is not None and (changed := changes(header["asked"], own["asked"])):
        raise ValueError(f"it has answers to something else: {'; '.join(changed)}")


def _is_part(name: str) -> bool:
    return name.endswith(_SUFFIX) and not name.startswith((".", "_"))


def _line(error: Exception) -> str:
    """What an error says, on one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _run_of(name: str) -> int:
    """The number of the run that wrote a part; 0 for a name that says none."""
    number = name.removeprefix(_PREFIX).partition("-")[0]
    return int(number) if number.isdecimal() else 0
