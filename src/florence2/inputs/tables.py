"""Lists of images that are tables: one column of CSV, TSV, JSON lines or Parquet holds paths or URLs.

In: the file. Out: what stands in the column, in order; empty cells are left out. Other columns are not looked at. Knows nothing of images.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from florence2.console import shown
from florence2.errors import InvalidRequest
from florence2.extras import requires

COLUMNS = ("image", "path", "file", "file_name", "filename", "url", "image_url", "uri")
"""The names of columns that hold images, the first that is there counts."""

Reader = Callable[[Path, "str | None"], Iterable[str]]


def is_table(name: str) -> bool:
    """Whether a file is a table, by its name."""
    return Path(name).suffix.lower() in _READERS


def iter_table(name: str, column: str | None) -> Iterator[str]:
    """What stands in the column of images, read as it is taken.

    Args:
        name: the file.
        column: the column's name; None for the first of ``COLUMNS`` that is there.

    Raises:
        InvalidRequest: there is no such column, or the file is no such table.
        MissingExtra: it is Parquet, and pyarrow is not installed.
        OSError: it can't be read.
    """
    return (cell for cell in _READERS[Path(name).suffix.lower()](Path(name), column) if cell.strip())


def _chosen(path: Path, names: Sequence[str], column: str | None) -> str:
    """The column that holds images."""
    wanted = COLUMNS if column is None else (column,)
    for name in wanted:
        if name in names:
            return name
    by_lower = {name.strip().lower(): name for name in names}
    for name in wanted:
        if name.lower() in by_lower:
            return by_lower[name.lower()]
    expected = f"none of the columns {', '.join(COLUMNS)}" if column is None else f"no column {shown(column)!r}"
    there = ", ".join(shown(name) for name in names[:20]) or "none"
    raise _wrong(path, f"has {expected}; its columns are {there[:200]}. Say which holds paths or URLs with --column")


def _csv(path: Path, column: str | None) -> Iterator[str]:
    """A column of comma-, semicolon- or tab-separated values with a line of names."""
    with _opened(path, newline="") as file:
        head = file.readline()
        file.seek(0)
        rows = csv.reader(file)
        try:
            rows = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else _delimiter(head, column))
            names = next(rows, [])
            index = names.index(_chosen(path, names, column))
            yield from (row[index] for row in rows if index < len(row))
        except csv.Error as error:
            raise _wrong(path, f"line {rows.line_num}: {error}") from error


def _delimiter(head: str, column: str | None) -> str:
    """What parts the names in the first line: that by which the wanted one is among them, or else by which they are most."""
    named = {mark: [name.strip().lower() for name in next(csv.reader([head], delimiter=mark), [])] for mark in ",;\t"}
    wanted = {name.strip().lower() for name in (COLUMNS if column is None else (column,))}
    return max(named, key=lambda mark: (not wanted.isdisjoint(named[mark]), len(named[mark])))


def _opened(path: Path, newline: str | None = None) -> TextIO:
    """A text file in UTF-8, or in UTF-16 with a byte order mark, as Windows writes it."""
    with open(path, "rb") as file:
        is_utf_16 = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    encoding, errors = ("utf-16", "replace") if is_utf_16 else ("utf-8-sig", "surrogateescape")
    return open(path, encoding=encoding, errors=errors, newline=newline)


def _jsonl(path: Path, column: str | None) -> Iterator[str]:
    """A field of JSON objects, one a line; lines that are texts are taken as they are."""
    field: str | None = None
    with _opened(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise _wrong(path, f"line {number} is no JSON: {str(error)[:80]}") from None
            if isinstance(record, str):
                yield record
                continue
            if not isinstance(record, dict):
                raise _wrong(path, f"line {number}: expected an object or a text, got {shown(line.strip()[:40])}")
            if field is None or field not in record:
                field = _chosen(path, list(map(str, record)), column)
            yield from _text(path, record[field], f"line {number}")


def _text(path: Path, value: Any, where: str) -> Iterator[str]:
    """A cell; none where it is empty."""
    if value is None:
        return
    if not isinstance(value, str):
        raise _wrong(path, f"{where}: expected a path or URL, got {shown(json.dumps(value)[:60])}")
    yield value


def _parquet(path: Path, column: str | None) -> Iterator[str]:
    """A column of a Parquet file, read a batch at a time."""
    with requires("parquet", f"the list {shown(path)}"):
        import pyarrow
        import pyarrow.parquet as parquet
    try:
        with open(path, "rb") as opened, parquet.ParquetFile(opened) as file:
            name = _chosen(path, file.schema_arrow.names, column)
            kind = file.schema_arrow.field(name).type
            if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind) or pyarrow.types.is_dictionary(kind)):
                raise _wrong(path, f"the column {name} holds {str(kind)[:80]}, expected texts: paths or URLs of images")
            for batch in file.iter_batches(columns=[name]):
                yield from (cell for cell in batch.column(0).to_pylist() if cell is not None)
    except pyarrow.ArrowException as error:
        raise _wrong(path, f"is no Parquet that can be read: {' '.join(str(error).split())[:120]}") from error


def _wrong(path: Path, what: str) -> InvalidRequest:
    return InvalidRequest(f"the list {shown(path)} {what}" if not what.startswith("line") else f"{shown(path)}, {what}", field="lists")


_READERS: dict[str, Reader] = {".csv": _csv, ".tsv": _csv, ".jsonl": _jsonl, ".ndjson": _jsonl, ".parquet": _parquet}
