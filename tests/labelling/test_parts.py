"""Parts of a labelling run: records come back as they were, files are whole or not there, and each picture counts once."""

from __future__ import annotations

import errno
import io
import os
import pickle
import shutil
import threading
import time
import tracemalloc
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from florence2.errors import DatasetError, InvalidOption, MissingExtra
from florence2.labelling.part_files import STALE_S, UNFINISHED, LocalFiles, files_in
from florence2.labelling.parts import HEADER, PartsFolder, part_schema, part_table, parts_in, records_of
from tests.labelling.journals import answer, boxes, record

ASKED = {"tasks": ["<OD>"]}
TEXT = st.text(st.characters(exclude_categories=()), max_size=12)
SIMPLE = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
JSON = st.recursive(SIMPLE, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=6)
NUMBER = st.integers(0, 2**40)
RESPONSE = st.one_of(
    st.builds(lambda text: {"<CAPTION>": text}, TEXT),
    st.builds(
        lambda found, scores: {"<OD>": {"bboxes": [[1.5, 2.0, 3.25, 4.0]] * len(found), "labels": found, "scores": scores}},
        st.lists(TEXT, max_size=3),
        st.lists(st.none() | st.floats(0, 1), max_size=3),
    ),
    st.builds(lambda task, value: {task: value}, TEXT, JSON),
    JSON,
)
ANSWER = st.fixed_dictionaries({"prompt": TEXT, "response": RESPONSE, "text": TEXT, "finish_reason": st.sampled_from(["stop", "length"])})
ORIGIN = {
    "id": TEXT,
    "name": TEXT,
    "root": TEXT,
    "path": st.none() | TEXT,
    "num_bytes": st.none() | NUMBER,
    "url": st.none() | TEXT,
    "part": st.none() | st.builds(lambda page: {"page": page}, NUMBER) | st.builds(lambda time_s: {"time_s": time_s}, st.floats(0, 1e6)),
}
LABELLED = {"file": st.none() | TEXT, "size": st.tuples(NUMBER, NUMBER).map(list), "answers": st.lists(ANSWER, max_size=4)}
RECORD = st.one_of(
    st.fixed_dictionaries({**ORIGIN, **LABELLED}),
    st.fixed_dictionaries({**ORIGIN, "error": st.fixed_dictionaries({"code": TEXT, "message": TEXT})}),
    st.fixed_dictionaries({"id": TEXT}, optional={**LABELLED, "error": JSON, "size": JSON, "answers": JSON, "more": JSON}),
)


def labelled(name: str, num_bytes: int | None = 7, label: str = "car") -> dict[str, Any]:
    """A record as ``asking`` makes it."""
    return {**record(name, answer("<OD>", boxes((label, (1, 2, 3, 4), 0.5))), answer("<CAPTION>", "a car")), "num_bytes": num_bytes}


def failed(name: str) -> dict[str, Any]:
    origin = {key: value for key, value in labelled(name).items() if key not in ("file", "size", "answers")}
    return {**origin, "error": {"code": "invalid_image", "message": "it is no picture"}}


def as_json(records: Any) -> list[str]:
    import json

    return [json.dumps(one, sort_keys=True) for one in records]


def begun(folder: str | Path, model: str = "model") -> PartsFolder:
    parts = PartsFolder(folder)
    parts.begin(ASKED, model)
    return parts


@pytest.fixture(params=["path", "memory", "renamed"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder of this machine, one in an object store, and one in a store where files are renamed."""
    kinds = {"path": str(tmp_path / "parts"), "memory": f"memory://{uuid.uuid4().hex}/parts", "renamed": f"local://{tmp_path}/parts"}
    return kinds[request.param]


@settings(deadline=None, max_examples=100)
@given(st.lists(RECORD, max_size=4))
def test_records_come_back_as_they_were(records: list[dict[str, Any]]) -> None:
    stored = io.BytesIO()
    parquet.write_table(part_table(records, model="m", model_digest="d"), stored)
    assert as_json(records_of(parquet.read_table(stored))) == as_json(records)


def test_rows_say_what_was_answered() -> None:
    table = part_table([labelled("a.jpg"), failed("b.jpg")], model="florence-2-base", model_digest="12ab")
    rows = table.to_pylist()
    assert [(row["id"], row["answer_index"], row["task"], row["error_code"]) for row in rows] == [
        ("a.jpg", 0, "<OD>", None),
        ("a.jpg", 1, "<CAPTION>", None),
        ("b.jpg", 0, None, "invalid_image"),
    ]
    assert rows[0]["answer"] == '{"bboxes": [[1, 2, 3, 4]], "labels": ["car"], "scores": [0.5]}'
    assert (rows[0]["scores"], rows[0]["width"], rows[0]["num_bytes"], rows[0]["exact"]) == ([0.5], 640, 7, None)
    assert {(row["model"], row["model_digest"], row["path"]) for row in rows[:2]} == {("florence-2-base", "12ab", "/pictures/a.jpg")}
    assert rows[2]["error_message"] == "it is no picture"
    exact = part_table([labelled("a\udcff.jpg")]).to_pylist()
    assert (exact[0]["id"], exact[0]["exact"] is None, exact[1]["exact"]) == ("a?.jpg", False, None)


def test_each_picture_counts_once_and_an_answer_before_an_error(place: str) -> None:
    parts = begun(place)
    assert parts.write([]) is None
    first = parts.write([labelled("a"), failed("b"), failed("c\udc80")], model_digest="12ab")
    names = [str(name) for name in (first, parts.write([labelled("b"), failed("a")]))]
    again = pickle.loads(pickle.dumps(parts)) if not place.startswith("memory") else parts
    names.append(str(again.write([labelled("a"), failed("d")])))
    assert again.names() == sorted(names) == names
    done = again.done_ids()
    assert [name in done for name in ("a", "b", "c\udc80", "c?", "d", "e")] == [True, True, False, False, False, False]
    assert len(done) == 2
    assert again.failed_ids() == ["c\udc80", "d"]
    assert as_json(one for _, one in again.records(names[1])) == as_json([labelled("b"), failed("a")])
    assert again.header == {"version": 1, "asked": ASKED, "model": "model"}
    assert again.damaged == {}


def test_something_else_is_refused_in_the_words_of_the_journal(place: str) -> None:
    begun(place, "another")  # nothing was answered
    begun(place).write([labelled("a")])
    begun(place)
    with pytest.raises(InvalidOption, match=r"--model was model and is other\. Go on with what it was, or choose another --output"):
        begun(place, "other")
    with pytest.raises(InvalidOption, match="were asked something else: --task was <OD> and is <OCR>; --beams was not given and is 3"):
        PartsFolder(place).begin({"tasks": ["<OCR>"], "num_beams": 3}, "model")


def test_what_is_damaged_is_named_and_passed_over(place: str) -> None:
    parts = begun(place)
    whole = [parts.write([labelled(f"{name}{number}") for number in range(500)]) for name in "ab"]
    files = files_in(place)
    with files.open(str(whole[0])) as file:
        content = file.read()
    flipped = bytearray(content)
    flipped[200:3000] = b"\xff" * 2800
    table = io.BytesIO()
    parquet.write_table(part_table([labelled("z")]).select(["id", "text"]), table)
    other = PartsFolder(f"{place}-other")
    other.begin({"tasks": ["<OCR>"]}, "model")
    with files_in(f"{place}-other").open(str(other.write([labelled("y")]))) as file:
        foreign = file.read()
    wrong = {"cut": content[:-9], "none": b"", "text": b"hello" * 9, "pages": bytes(flipped), "table": table.getvalue(), "foreign": foreign}
    for name, damage in wrong.items():
        files.write(f"part-00001-{name}.parquet", damage)
    files.write(f"{UNFINISHED}1", content)
    reader = PartsFolder(place)
    assert len(reader.done_ids()) == 1000
    assert {name.split("-")[2].split(".")[0] for name in reader.damaged} == set(wrong)
    assert len(reader.notices) == 4
    assert reader.notices[-1] == "passed over 3 more such files"
    assert "no column answer_index" in reader.damaged["part-00001-table.parquet"]
    assert "it has answers to something else: --task was <OD> and is <OCR>" in reader.damaged["part-00001-foreign.parquet"]
    assert list(reader.records("part-00001-cut.parquet")) == list(reader.records("gone.parquet")) == []
    files.write(HEADER, b'{"version": 2}')
    with pytest.raises(DatasetError, match=r"_header.json can't be read by this version"):
        PartsFolder(place).done_ids()
    for content in (b'{"version": 1, "as', b"\xff"):
        files.write(HEADER, content)
        assert PartsFolder(place).header == parts.header
    files.remove(HEADER)
    assert PartsFolder(place).header == parts.header


def test_what_can_not_be_reached_is_not_taken_for_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = begun(tmp_path)
    name = str(parts.write([labelled("a")]))

    class Away(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError("the network is away")

    monkeypatch.setattr(parts._files, "open", lambda name: Away(b"PAR1" * 100))
    with pytest.raises(DatasetError, match=rf"{name} can't be read: the network is away"):
        parts.done_ids()
    assert parts.damaged == {}


def test_what_killed_writers_have_left_is_removed(tmp_path: Path) -> None:
    parts = begun(tmp_path)
    parts.write([labelled("a")])
    old, new = (tmp_path / f"{UNFINISHED}{name}" for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"PAR1")
    past = time.time() - STALE_S - 1
    os.utime(old, (past, past))
    assert len(parts.done_ids()) == len(parts.names()) == 1
    parts.clean()
    assert (old.exists(), new.exists()) == (False, True)
    parts.clean(is_alone=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [HEADER, *parts.names()]


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = begun(tmp_path)
    before = sorted(tmp_path.iterdir())

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        parts.write([labelled("a")])
    assert sorted(tmp_path.iterdir()) == before


def test_a_reader_sees_whole_files_while_many_write(tmp_path: Path) -> None:
    parts, is_done = begun(tmp_path), threading.Event()
    seen: list[int] = []

    def write(worker: int) -> None:
        for number in range(12):
            parts.write([labelled(f"{worker}-{number}-{index}") for index in range(20)])

    def read() -> None:
        while not is_done.is_set():
            reader = PartsFolder(tmp_path)
            seen.append(len(reader.done_ids()))
            assert not reader.damaged

    workers = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    reading = threading.Thread(target=read)
    reading.start()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    is_done.set()
    reading.join()
    assert seen == sorted(seen)
    assert all(count % 20 == 0 for count in seen)
    assert len(PartsFolder(tmp_path).done_ids()) == 960


def test_later_runs_count_as_later_whatever_the_clocks_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun(tmp_path).write([labelled("a", 7)])
    monkeypatch.setattr(time, "time_ns", lambda: 5)
    begun(tmp_path).write([labelled("a", 9)])
    (tmp_path / "a").write_bytes(b"123456789")
    assert PartsFolder(tmp_path).done_ids().holds("a", str(tmp_path / "a"))
    (tmp_path / "a").write_bytes(b"1234567")
    assert not PartsFolder(tmp_path).done_ids().holds("a", str(tmp_path / "a"))


def test_many_ids_take_little_memory_and_time(tmp_path: Path) -> None:
    parts, count = begun(tmp_path), 200_000
    ids = [f"https://images.example.org/{number % 97}/{number}.jpg" for number in range(count)]
    for start in range(0, count, count // 10):
        held = {"id": ids[start : start + count // 10], "answer_index": np.zeros(count // 10, np.int32)}
        schema = part_schema(parts.header)
        table = pyarrow.table([pyarrow.array(held.get(field.name, [None] * (count // 10)), field.type) for field in schema], schema)
        parquet.write_table(table, tmp_path / f"part-00001-{start:06}.parquet")
    tracemalloc.start()
    begun_s = time.monotonic()
    done = parts.done_ids()
    took_s, peak = time.monotonic() - begun_s, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(done) == count
    assert done.num_bytes == 12 * count
    assert peak < 60 * count + 20_000_000  # the rest is one file's
    assert took_s < 30  # 1 s alone
    assert done.contains([*ids[:1000], *(f"{name}x" for name in ids)]).sum() == 1000


def test_addresses_that_lead_nowhere_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidOption, match="names no file system that is known"):
        parts_in("nonsense://bucket/run")
    with pytest.raises(MissingExtra, match="pip install adlfs"):
        parts_in("abfs://container/run").names()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert parts_in("s3://bucket/run/").folder == "s3://bucket/run/.florence2/parts"
    assert isinstance(files_in("file:///tmp/x"), LocalFiles)


def test_errors_that_stores_have_of_their_own_are_errors_of_files(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoCredentials(Exception):
        pass

    def refuse(*given: object, **options: object) -> None:
        raise NoCredentials("no key is known")

    parts = begun(f"memory://{uuid.uuid4().hex}/parts")
    for name in ("ls", "open", "pipe_file", "rm_file"):
        monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem." + name, refuse)
    for call in (parts.names, lambda: parts._files.open("a"), lambda: parts._files.write("a", b""), lambda: parts._files.remove("a")):
        with pytest.raises(OSError, match="NoCredentials: no key is known"):
            call()


def test_other_readers_take_the_folder_as_one_table(tmp_path: Path) -> None:
    import pandas
    from pyarrow import dataset

    parts = parts_in(tmp_path)
    parts.begin(ASKED, "model")
    for name in "ab":
        parts.write([labelled(name), failed(f"{name}2")])
    (Path(parts.folder) / f"{UNFINISHED}x").write_bytes(b"half")
    frame = pandas.read_parquet(parts.folder)
    assert sorted(frame[frame.task == "<OD>"].id) == ["a", "b"]
    assert dataset.dataset(parts.folder).count_rows() == 6
    shutil.rmtree(parts.folder)
    assert parts.names() == []
