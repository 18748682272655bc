"""The rows of a labelling run in Parquet: one for each answer, and one for a picture that could not be labelled.

In: records as ``asking`` makes them. Out: a table, and the same records back. What the columns can't hold (a name that is no UTF-8, a
field of another version) stands in the column ``exact`` as well, as JSON, so that a record always comes back as it was. Knows no files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from florence2.extras import requires
from florence2.labelling.answered import Gathered

if TYPE_CHECKING:
    import pyarrow

    from florence2.labelling.asking import Record

_ABOUT = b"florence2"
VERSION = 1
PLACE_COLUMNS = ("id", "answer_index", "error_code", "exact", "path", "num_bytes")
"""What has to be read to know which pictures were answered."""
_TEXTS = ("task", "prompt", "answer", "text", "finish_reason", "error_code", "error_message", "model", "model_digest")
_ORIGIN = ("name", "root", "path", "url", "part", "file")
_MOST = 2**63


def part_schema(header: Mapping[str, Any] | None = None) -> pyarrow.Schema:
    """The columns of a part.

    Args:
        header: what was asked, and of which model, which the file says of itself; None for a table that says nothing.

    Raises:
        MissingExtra: ``pyarrow`` is not installed.
    """
    with requires("parquet", "a labelling run in Parquet"):
        import pyarrow as pa

    columns = {
        "id": pa.string(),
        "answer_index": pa.int32(),
        **dict.fromkeys(_TEXTS[:4], pa.string()),
        "scores": pa.list_(pa.float64()),
        **dict.fromkeys((*_TEXTS[4:], *_ORIGIN), pa.string()),
        **dict.fromkeys(("width", "height", "num_bytes"), pa.int64()),
        "exact": pa.string(),
    }
    return pa.schema(columns, metadata=None if header is None else {_ABOUT: json.dumps(dict(header)).encode("ascii")})


def part_table(
    records: Sequence[Record], *, model: str | None = None, model_digest: str | None = None, header: Mapping[str, Any] | None = None
) -> pyarrow.Table:
    """Records as a table, in their order; the rows of a record stand together.

    Args:
        records: as ``asking`` makes them.
        model: the model's name.
        model_digest: what its weights are, as ``florence2.weights.digest.model_digest`` has it.
        header: what was asked, for the table's metadata.

    Raises:
        MissingExtra: ``pyarrow`` is not installed.
    """
    schema = part_schema(header)
    import pyarrow as pa

    about = {"model": _text(model), "model_digest": _text(model_digest)}
    return pa.Table.from_pylist([row | about for record in records for row in _rows(record)], schema=schema)


def records_of(table: pyarrow.Table) -> Iterator[Record]:
    """The records that a table was made of."""
    return (record for _, record in placed_records(row for batch in table.to_batches(1000) for row in batch.to_pylist()))


def placed_records(rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[int, Record]]:
    """Each record with the number of its first row.

    Args:
        rows: of the table, in its order.
    """
    held: list[Mapping[str, Any]] = []
    count = 0
    for row in rows:
        if row["answer_index"] == 0 and held:
            yield count - len(held), _record(held)
            held = []
        held.append(row)
        count += 1
    if held:
        yield count - len(held), _record(held)


class Heads(NamedTuple):
    """The pictures of a table without their answers, in its order.

    Attributes:
        rows: the number of the first row of each.
        ids: their ids.
        paths: of each its file's absolute path; None where it is no file.
        lengths: of each the length of its file in bytes; None where it is not known.
        are_failed: of each whether it could not be labelled.
    """

    rows: list[int]
    ids: list[str]
    paths: list[str | None]
    lengths: list[int | None]
    are_failed: list[bool]

    def gather(self, gathered: Gathered, order: int = 0) -> None:
        """Add those that were labelled to others.

        Args:
            gathered: the others.
            order: of this table, which counts before lower ones.
        """
        kept = [index for index, is_failed in enumerate(self.are_failed) if not is_failed]
        ids, paths, lengths = ([column[index] for index in kept] for column in (self.ids, self.paths, self.lengths))
        gathered.add(ids, paths, lengths, order)  # type: ignore[arg-type]


def heads_of(table: pyarrow.Table) -> Heads:
    """The pictures of a table, which has at least the columns ``PLACE_COLUMNS``.

    Raises:
        ValueError, KeyError, TypeError: what is in the columns is none of ours.
    """
    import pyarrow as pa

    is_first = table["answer_index"].to_numpy() == 0
    first = table.filter(pa.array(is_first))
    ids, paths, lengths = (first[name].to_pylist() for name in ("id", "path", "num_bytes"))
    for index, exact in enumerate(first["exact"].to_pylist()):
        if exact is not None:
            record = json.loads(exact)
            ids[index], paths[index], lengths[index] = record["id"], record.get("path"), record.get("num_bytes")
    if None in ids:
        raise ValueError("a picture has no id")
    return Heads(is_first.nonzero()[0].tolist(), ids, paths, lengths, first["error_code"].is_valid().to_pylist())


def header_of(schema: pyarrow.Schema) -> dict[str, Any] | None:
    """What a part says of what was asked, and of which model; None where it says nothing.

    Raises:
        ValueError: another version has written it.
    """
    written = (schema.metadata or {}).get(_ABOUT)
    header = None if written is None else json.loads(written)
    if header is not None and not is_header(header):
        raise ValueError("another version of florence2 has written it")
    return header


def is_header(header: object) -> bool:
    """Whether this version reads what a header like this one belongs to."""
    return isinstance(header, dict) and header.get("version") == VERSION and isinstance(header.get("asked"), dict)


def _rows(record: Record) -> list[dict[str, Any]]:
    """The rows of a record; of one without answers a single one."""
    answers = record.get("answers")
    listed = answers if isinstance(answers, list) and answers else [None]
    rows = [_begun(record) | {"answer_index": index} | _answer_row(answer) for index, answer in enumerate(listed)]
    if _as_json(_record(rows)) != _as_json(record):
        rows[0]["exact"] = json.dumps(record)
    return rows


def _begun(record: Record) -> dict[str, Any]:
    """What all rows of a record say: where the picture came from, its size, and its error."""
    size = record.get("size")
    width, height = size if isinstance(size, list) and len(size) == 2 else (None, None)
    row = {name: _text(record.get(name)) for name in ("id", *_ORIGIN)}
    part, error = record.get("part"), record.get("error")
    row["part"] = None if part is None else _json(part)
    row |= {"width": _whole(width), "height": _whole(height), "num_bytes": _whole(record.get("num_bytes")), "exact": None}
    if "error" in record:
        known = error if isinstance(error, Mapping) else {}
        row |= {"error_code": _text(known.get("code")) or "", "error_message": _text(known.get("message"))}
    else:
        row |= {"error_code": None, "error_message": None}
    return row


def _answer_row(answer: Record | None) -> dict[str, Any]:
    """What a row says of one answer."""
    if not isinstance(answer, Mapping):
        return dict.fromkeys(("task", "prompt", "answer", "text", "scores", "finish_reason"))
    response = answer.get("response")
    task, value = next(iter(response.items())) if isinstance(response, Mapping) and len(response) == 1 else (None, response)
    scores = value.get("scores") if isinstance(value, Mapping) else None
    are_scores = isinstance(scores, list) and all(score is None or isinstance(score, float) for score in scores)
    said = {name: _text(answer.get(name)) for name in ("prompt", "text", "finish_reason")}
    return said | {"task": _text(task), "answer": _json(value), "scores": scores if are_scores else None}


def _record(rows: Sequence[Mapping[str, Any]]) -> Record:
    """The record behind its rows."""
    first = rows[0]
    if first["exact"] is not None:
        return json.loads(first["exact"])
    record = {name: first[name] for name in ("id", "name", "root", "path", "num_bytes", "url")}
    record["part"] = None if first["part"] is None else json.loads(first["part"])
    if first["error_code"] is not None:
        return {**record, "error": {"code": first["error_code"], "message": first["error_message"]}}
    answers = [
        {
            "prompt": row["prompt"],
            "response": {row["task"]: json.loads(row["answer"])},
            "text": row["text"],
            "finish_reason": row["finish_reason"],
        }
        for row in rows
        if row["answer"] is not None
    ]
    return {**record, "file": first["file"], "size": [first["width"], first["height"]], "answers": answers}


def _text(value: object) -> str | None:
    """The text as a column holds it; None for what is no text."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else None


def _whole(value: object) -> int | None:
    """The whole number as a column holds it; None for what is none."""
    return value if type(value) is int and -_MOST <= value < _MOST else None


def _json(value: object) -> str:
    """The value as JSON that people can read, where UTF-8 can hold it."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value)
    return text


def _as_json(record: Record) -> str:
    """What two records have in common that are the same to every reader of JSON."""
    return json.dumps(record, sort_keys=True)
