"""Parquet files with a row for each picture and its labels in typed, nested columns.

In: a labelled set. Out: ``train.parquet`` and ``valid.parquet``. The column ``image`` is a structure of ``bytes`` and ``path``, which
Hugging Face's ``datasets`` opens as a picture: with copied pictures it holds their files, otherwise their absolute paths. Row groups are
bounded by rows and by bytes.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from florence2.datasets.labelled import LabelledPicture, LabelledSet
from florence2.datasets.writers.entries import Entries
from florence2.datasets.writers.json_writing import to_json
from florence2.datasets.writers.names import portable_name, with_suffix
from florence2.datasets.writers.placing import place, upright_file
from florence2.datasets.writers.rows import row_of
from florence2.datasets.writers.written import WriteOptions, Written
from florence2.extras import requires

if TYPE_CHECKING:
    import pyarrow

GROUP_ROWS, GROUP_BYTES = 1000, 2**26
_NAMES = {"train": "train", "val": "valid"}
_IMAGE = {"info": {"features": {"image": {"_type": "Image"}}}}


class _Table:
    """A file that is written a group of rows at a time."""

    def __init__(self, stack: ExitStack, path: Path, schema: pyarrow.Schema) -> None:
        from pyarrow import parquet

        self._schema = schema
        self._writer = stack.enter_context(parquet.ParquetWriter(path, schema))
        self._rows: list[dict[str, Any]] = []
        self._num_bytes = 0

    def add(self, row: dict[str, Any]) -> None:
        """Add a row, and write the group if it is full."""
        self._rows.append(row)
        numbers = sum(len(outline) for thing in row["objects"] for outline in thing["polygons"])
        self._num_bytes += len(row["image"]["bytes"] or b"") + 1000 * len(row["objects"]) + 32 * numbers  # as Python holds them
        if len(self._rows) == GROUP_ROWS or self._num_bytes >= GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write the rows that are held."""
        import pyarrow

        if self._rows:
            self._writer.write_table(pyarrow.Table.from_pylist(self._rows, schema=self._schema))
            self._rows, self._num_bytes = [], 0


def write(data: LabelledSet, folder: Path, options: WriteOptions) -> Written:
    """Write a labelled set as Parquet, and return what was written.

    Raises:
        MissingExtra: ``pyarrow`` is not installed.
    """
    with requires("parquet", "the format parquet"):
        schema = _schema(data)
    entries = Entries(data, folder, options)
    image: dict[str, Any] = {}

    def read(picture: LabelledPicture) -> str:
        nonlocal image
        if options.images == "leave":
            image = {"bytes": None, "path": place(picture, picture.name, folder, options, entries.notices)}
            return picture.name
        file = upright_file(picture, entries.notices)
        is_embedded = options.images == "copy" or not file.is_original
        name = with_suffix(portable_name(picture.name), file.suffix)
        image = {"bytes": file.content, "path": name} if is_embedded else {"bytes": None, "path": str(picture.file)}
        return picture.name

    with ExitStack() as stack:
        tables = {"train": _Table(stack, folder / "train.parquet", schema)}
        for entry in entries.by(read):
            split = entry.picture.split
            if split not in tables:
                tables[split] = _Table(stack, folder / f"{_NAMES[split]}.parquet", schema)
            tables[split].add(_without_halves({**row_of(entry, options), "split": split, "image": image}))
        for table in tables.values():
            table.flush()
    return entries.written()


def _schema(data: LabelledSet) -> pyarrow.Schema:
    import pyarrow as pa

    text, numbers = pa.string(), pa.list_(pa.float64())
    about_object = {"label": text, "class_id": pa.int32(), "box": numbers, "polygons": pa.list_(numbers), "score": pa.float64()}
    columns = {
        "image": pa.struct({"bytes": pa.binary(), "path": text}),
        **dict.fromkeys(("name", "where", "split"), text),
        **dict.fromkeys(("width", "height"), pa.int32()),
        "objects": pa.list_(pa.struct({**about_object, "text": text, "task": text})),
        "texts": pa.list_(pa.struct({"prompt": text, "text": text})),
        "examples": pa.list_(pa.struct({"prompt": text, "answer": text})),
    }
    about = {"info": dict(data.info), "classes": list(data.classes)}
    return pa.schema(columns, metadata={"huggingface": json.dumps(_IMAGE), "florence2": to_json(about)})


def _without_halves(value: Any) -> Any:
    """The value, its texts such that UTF-8 can hold them."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_without_halves(each) for each in value]
    return {key: _without_halves(each) for key, each in value.items()} if isinstance(value, dict) else value
