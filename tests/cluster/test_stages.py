"""The stages of a labelling run in one process: what is read, asked and written of chunks, whatever becomes of workers."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from florence2.cluster.answering import Asker, num_chunks
from florence2.cluster.ledger import PICTURE, WAIT, Ledger
from florence2.cluster.listing import Named
from florence2.cluster.reading import Reader, closed, opened
from florence2.cluster.writing import Writer
from florence2.errors import EngineFailed
from florence2.images.resized import ResizedPicture
from florence2.inputs.selection import Selection
from florence2.labelling.asking import MOST_UNANSWERED
from florence2.labelling.options import LabelOptions
from florence2.labelling.parts import parts_in
from florence2.weights.defaults import ImageSettings
from tests.cluster import scripted
from tests.labelling.standing_in import draw_pictures

ray = pytest.importorskip("ray", reason="Ray has no wheel for this Python and system; the cluster is not tested")
OD = LabelOptions(tasks=("od",))


class Local:
    """The ledger as an actor's handle, in this process: what ``remote`` gives is the value itself."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.ledger, name)
        return type("Method", (), {"remote": staticmethod(method)})


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "get", lambda value: value)


def ledger_of(words: Any, output: Path, *, is_strict: bool = False, **more: Any) -> Local:
    return Local(Ledger(Named(words, **more), str(output), None, 100, is_strict))


def chunks(ledger: Local) -> Iterator[Any]:
    index = 0
    while (content := ledger.ledger.chunk(index)) is not None:
        import pyarrow as pa

        assert content != WAIT
        yield pa.table({"key": [index], "content": pa.array([content], pa.large_binary())})
        index += 1


def read(reader: Reader) -> list[Any]:
    return [picture for chunk in chunks(reader.ledger) for block in reader(chunk) for picture in opened(block)[1]]


def test_pictures_come_at_the_models_size_and_what_is_none_with_its_reason(tmp_path: Path):
    photos = draw_pictures(tmp_path / "photos", 3)
    Image.new("RGB", (900, 40)).save(photos / "large.png")
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0nothing")
    (photos / "notes.txt").write_text("none")
    listed = [f"local://{photos}/0001.png", "local:///gone/x.png"]
    ledger = ledger_of([str(photos), str(tmp_path / "gone.png")], tmp_path / "out", lists=[listed])
    found = {Path(one.image.id).name: one for one in read(Reader(ledger, settings=ImageSettings(width=64, height=64)))}
    assert ledger.ledger.state().error is None
    assert sorted(found) == ["0000.png", "0001.png", "0002.png", "broken.jpg", "gone.png", "large.png", "x.png"]
    assert isinstance(found["large.png"].content, ResizedPicture)
    assert found["large.png"].content.size == (900, 40)
    assert isinstance(found["0000.png"].content, Image.Image)
    assert (found["0001.png"].image.kind, found["0001.png"].image.content) == ("url", b"")
    assert all(found[name].content.code == "invalid_image" for name in ("broken.jpg", "gone.png", "x.png"))
    state = ledger.ledger.state()
    assert (state.num_left_out["picture"], state.num_open, state.num_listed) == (1, 1, 9)


def test_pages_are_pictures_and_those_that_are_done_are_not_read(tmp_path: Path):
    pages = [Image.new("RGB", (20 + number, 16)) for number in range(20)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    name = str(tmp_path / "a.tif")
    parts_in(tmp_path / "out").begin(OD.asked, "m")
    records = [{"id": f"{name}#page={number}", "name": "a", "answers": [], "size": [1, 1], "part": {"page": number}} for number in (1, 3)]
    parts_in(tmp_path / "out").write(records)
    ledger = ledger_of([name], tmp_path / "out", selection=Selection(pages="all"))
    reader = Reader(ledger, Selection(pages="all"), folder=tmp_path / "out")
    sizes = [len(opened(block)[1]) for chunk in chunks(ledger) for block in reader(chunk)]
    assert sizes == [16, 2]
    assert len(list((tmp_path / "out" / "pictures").iterdir())) == 18


@pytest.mark.parametrize("num_begun", [1, 2, 3])
def test_an_input_whose_worker_was_lost_twice_fails_alone(tmp_path: Path, num_begun: int):
    ledger = ledger_of([str(draw_pictures(tmp_path / "photos", 3))], tmp_path / "out")
    deadly = str(tmp_path / "photos" / "0001.png")
    ledger.ledger.begin("read-0")
    for _ in range(num_begun - 1):
        ledger.ledger.begin(PICTURE + deadly)
    codes = {one.image.id: getattr(one.content, "code", None) for one in read(Reader(ledger))}
    assert len(codes) == 3
    assert [name for name, code in codes.items() if code] == ([deadly] if num_begun == 3 else [])
    assert codes[deadly] == ("worker_lost" if num_begun == 3 else None)


def asker_of(ledger: Local, folder: Path, seconds: float = 0.0) -> Asker:
    return Asker(ledger, partial(scripted.load, folder / "log", seconds, None, 1), OD, None)


def written_in(folder: Path) -> list[Any]:
    parts = parts_in(folder)
    return [record for name in parts.names() for _, record in parts.records(name)]


def read_chunks(ledger: Local) -> list[Any]:
    reader = Reader(ledger)
    return [block for chunk in chunks(ledger) for block in reader(chunk)]


def test_an_engine_is_full_from_one_chunk_to_the_next(tmp_path: Path):
    ledger = ledger_of([str(draw_pictures(tmp_path / "photos", 128))], tmp_path / "out")
    blocks = read_chunks(ledger)
    asker, left = asker_of(ledger, tmp_path, seconds=0.2), iter(blocks)
    lock, keys = threading.Lock(), []

    def work() -> None:  # as the threads of an actor do
        while True:
            with lock:
                block = next(left, None)
            if block is None:
                return
            keys.extend(opened(one)[0] for one in asker(block))

    threads = [threading.Thread(target=work) for _ in range(num_chunks(scripted.CAPACITY))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(keys) == sorted(opened(block)[0] for block in blocks)
    under_way = [int(line.split()[1]) for line in (tmp_path / "log").read_text().splitlines()]
    steady = under_way[scripted.CAPACITY :]
    assert max(under_way) == scripted.CAPACITY
    assert sum(steady) / len(steady) > 0.75 * scripted.CAPACITY  # with one chunk after the other it is half


def test_a_picture_that_ends_its_worker_twice_is_a_failed_row(tmp_path: Path):
    ledger = ledger_of([str(draw_pictures(tmp_path / "photos", 3))], tmp_path / "out")
    (block,) = read_chunks(ledger)
    deadly = str(tmp_path / "photos" / "0001.png")
    for key in ("0.0", PICTURE + deadly, PICTURE + deadly):
        ledger.ledger.begin(key)
    (answered,) = asker_of(ledger, tmp_path)(block)
    writer = Writer(ledger, parts_in(tmp_path / "out"))
    parts_in(tmp_path / "out").begin(OD.asked, "m")
    assert list(writer(answered)) == []
    records = {record["id"]: record for record in written_in(tmp_path / "out")}
    assert len(records) == 3
    assert records[deadly]["error"]["code"] == "worker_lost"
    assert [len(record["answers"]) for name, record in records.items() if name != deadly] == [1, 1]
    state = ledger.ledger.state()
    assert (state.num_new, state.num_failed, state.num_open) == (2, 1, 0)


def test_a_model_that_answers_nothing_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ledger = ledger_of([str(draw_pictures(tmp_path / "photos", MOST_UNANSWERED + 4))], tmp_path / "out")
    blocks = read_chunks(ledger)

    def ask(*_: object) -> None:
        raise EngineFailed("no memory")

    monkeypatch.setattr(scripted.Scripted, "ask", ask)
    asker = asker_of(ledger, tmp_path)
    assert [len(opened(one)[1]) for block in blocks for one in asker(block)] == [16]  # the second is not begun
    assert "16 pictures in a row got no answer" in str(ledger.ledger.state().error)


def test_a_model_that_can_not_be_loaded_ends_the_run(tmp_path: Path):
    ledger = ledger_of([str(draw_pictures(tmp_path / "photos", 1))], tmp_path / "out")
    (block,) = read_chunks(ledger)

    def load(*_: object) -> Any:
        raise EngineFailed("no such model")

    assert list(Asker(ledger, load, OD, None)(block)) == []
    assert str(ledger.ledger.state().error) == "no such model"


def written(key: str, names: list[str], error: str | None = None) -> Any:
    import json

    about = {"error": {"code": error, "message": error}} if error else {"answers": [], "size": [1, 1]}
    return closed(key, [json.dumps({"id": name, "name": name, **about}).encode() for name in names], digest="")


def test_records_wait_for_others_and_are_written_together(tmp_path: Path):
    parts = parts_in(tmp_path / "out")
    parts.begin(OD.asked, "m")
    ledger = ledger_of([str(draw_pictures(tmp_path / "photos", 1))], tmp_path / "out")
    writer = Writer(ledger, parts, num_records=4)
    calls = [threading.Thread(target=lambda key=key: list(writer(written(key, [key, f"{key}x"])))) for key in ("a", "b")]
    calls[0].start()
    time.sleep(0.8)
    assert parts.names() == []
    assert calls[0].is_alive()
    calls[1].start()
    for call in calls:
        call.join(10)
    assert len(parts.names()) == 1
    assert sorted(record["id"] for record in written_in(tmp_path / "out")) == ["a", "ax", "b", "bx"]


def test_a_full_disk_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    parts = parts_in(tmp_path / "out")
    ledger = ledger_of([str(draw_pictures(tmp_path / "photos", 1))], tmp_path / "out")

    def write(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(parts, "write", write)
    list(Writer(ledger, parts, num_records=1)(written("a", ["a"])))
    state = ledger.ledger.state()
    assert isinstance(state.error, OSError)
    assert state.num_new == 0
    assert ledger.ledger.begin("b")[1]


def test_a_broken_picture_ends_a_strict_run(tmp_path: Path):
    ledger = ledger_of([str(draw_pictures(tmp_path / "photos", 40))], tmp_path / "out", is_strict=True)
    ledger.ledger.chunk(0)
    ledger.ledger.write([("a", [{"id": "a"}, {"id": "b", "error": {"code": "x", "message": "y"}}])])
    assert ledger.ledger.chunk(1) is None
    assert (ledger.ledger.state().broken or {})["id"] == "b"


def test_chunks_that_were_lost_are_listed_again_and_none_is_counted_twice(tmp_path: Path):
    ledger = ledger_of([str(draw_pictures(tmp_path / "photos", 20))], tmp_path / "out").ledger
    first, second = ledger.chunk(0), ledger.chunk(1)
    assert ledger.chunk(0) == first
    assert ledger.chunk(2) is None
    ledger.read("0.0", 16)
    ledger.read_all(0, 16, type(ledger.state().num_left_out)())
    for _ in range(2):  # the second time by a worker that did it again
        ledger.write([("0.0", [{"id": str(number)} for number in range(16)])])
    assert (ledger.state().num_new, ledger.state().num_open) == (16, 1)
    assert second is not None
    assert ledger.again()
    assert ledger.chunk(0) is not None
