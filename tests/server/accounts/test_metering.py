"""Usage: noted before the answer goes out, each part of a journal counted once, whatever is killed, full or away meanwhile."""

from __future__ import annotations

import datetime
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from florence2.server.accounts import meter as meter_module
from florence2.server.accounts.database import Database
from florence2.server.accounts.journal import Journal
from florence2.server.accounts.key_info import KeyInfo
from florence2.server.accounts.meter import Meter
from florence2.server.accounts.store import KeyStore
from florence2.server.accounts.totals import Record, read_line
from florence2.server.accounts.usage import add_batch, read_usage
from florence2.server.errors import KeysUnavailable
from tests.server.fakes import body, client_of, image_field
from tests.server.process import start_server

NOW = 1_790_000_000  # in September 2026
KEY = KeyInfo("team-a", frozenset({"infer"}))
MeterOf = Callable[..., Meter]


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    with Database(url) as opened:
        yield opened


@pytest.fixture
def meter_of(database: Database, tmp_path: Path, request: pytest.FixtureRequest) -> MeterOf:
    """Makes meters on one folder; their threads are not started, so that the test says when they move what they have."""

    def make() -> Meter:
        made = Meter(database, tmp_path / "usage")
        request.addfinalizer(made.close)
        return made

    return make


def record(at: int = NOW, key: str = "team-a", model: str = "m", **values: Any) -> Record:
    return Record(at, key, model, **{"requests": 1, "images": 2, "prompt_tokens": 10, "answer_tokens": 5, "compute_s": 0.25, **values})


def sums(database: Database) -> tuple[int, int]:
    """Requests and images of all."""
    rows = read_usage(database, by="key")
    return sum(row.requests for row in rows), sum(row.images for row in rows)


def test_a_record_is_a_line() -> None:
    whole = record(codes=("invalid_image", "x" * 200), model="ü" * 10)
    assert read_line(whole.to_line()) == whole
    for broken in (b"", b"[1,2", b"{}", b"[]", b'["a","b","c",1,2,3,4,5,[]]', b"\xff", whole.to_line()[:-5]):
        assert read_line(broken) is None


def test_sums_by_day_month_model_and_key(database: Database, meter_of: MeterOf) -> None:
    meter, day = meter_of(), 86_400
    for at, key, model in ((NOW, "a", "m"), (NOW, "a", "m"), (NOW + day, "a", "n"), (NOW + 40 * day, "a", "m"), (NOW, "b", "m")):
        meter.note(record(at, key, model))
    meter.note(record(NOW, "a", "", requests=0, images=0, compute_s=0, codes=("overloaded",)))
    assert meter.flush()
    first = datetime.datetime.fromtimestamp(NOW, datetime.UTC).date()
    rows = read_usage(database, key="a")
    assert [(row.time, row.model, row.requests) for row in rows if row.requests] == [
        (first.isoformat(), "m", 2),
        ((first + datetime.timedelta(1)).isoformat(), "n", 1),
        ((first + datetime.timedelta(40)).isoformat(), "m", 1),
    ]
    assert [row.errors for row in rows if row.errors] == [{"overloaded": 1}]
    assert [row.time for row in read_usage(database, key="a", by="month") if row.model == "m"] == ["2026-09", "2026-10"]
    assert [(row.model, row.requests) for row in read_usage(database, key="a", by="model")] == [("", 0), ("m", 3), ("n", 1)]
    (of_b,) = read_usage(database, key="b", by="key")
    assert (of_b.images, of_b.prompt_tokens, of_b.answer_tokens, of_b.compute_s) == (2, 10, 5, 0.25)
    assert [row.requests for row in read_usage(database, key="a", by="key", since=first, until=first)] == [2]


def test_a_part_is_counted_once_whatever_comes_between(
    database: Database, meter_of: MeterOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = meter_of()
    meter.note(record())

    def lose_the_answer(*arguments: Any) -> bool:
        add_batch(*arguments)
        raise KeysUnavailable("the connection broke off behind the commit")

    monkeypatch.setattr(meter_module, "add_batch", lose_the_answer)
    assert not meter.flush()
    (part,) = [path for path in (tmp_path / "usage").glob("*.part") if path.stat().st_size]
    copy = shutil.copy(part, tmp_path / "kept")
    monkeypatch.undo()
    assert meter.flush()
    assert sums(database) == (1, 2)
    shutil.copy(copy, part)  # as after a crash between the commit and the removal of the file
    assert meter.flush()
    assert sums(database) == (1, 2)


def test_what_a_killed_process_left_is_taken_up_and_what_a_living_one_writes_is_not(
    database: Database, meter_of: MeterOf, tmp_path: Path
) -> None:
    child = os.fork()
    if child == 0:  # without a word to anybody, as by kill -9
        journal = Journal(tmp_path / "usage")
        journal.append(record().to_line())
        journal.cut()
        journal.append(record().to_line())
        journal.append(record().to_line()[:20])
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    living, meter = meter_of(), meter_of()
    living.note(record())
    assert meter.flush()
    assert sums(database) == (2, 4)
    assert living.flush()
    assert sums(database) == (3, 6)
    for one in (living, meter):
        one.close()
    assert [path.name for path in (tmp_path / "usage").iterdir()] == []


def test_several_servers_at_once(database: Database, meter_of: MeterOf) -> None:
    meters = [meter_of() for _ in range(3)]

    def work(meter: Meter) -> None:
        for number in range(200):
            meter.note(record(key=f"key{number % 7}", model=f"m{number % 3}"))
            if number % 20 == 0:
                assert meter.flush()
        assert meter.flush()

    threads = [threading.Thread(target=work, args=(meter,)) for meter in meters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sums(database) == (600, 1200)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_costs_no_answer_and_no_usage(database: Database, meter_of: MeterOf) -> None:
    meter = meter_of()
    meter.note(record())
    before, full = meter._journal._file, os.open("/dev/full", os.O_WRONLY)
    meter._journal._file = full
    meter.note(record())
    meter.note(record())
    meter._journal._file = before
    os.close(full)
    assert meter.num_unwritten == 2
    assert meter.flush()
    assert sums(database) == (3, 6)


def test_a_folder_that_can_not_be_written_is_told(database: Database, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Exception, match="journal of usage can't be written") as caught:
        Meter(database, tmp_path / "file")
    assert getattr(caught.value, "field", None) == "journal_folder"


def _unreachable(*_: object, **__: object) -> None:
    raise KeysUnavailable("the database postgresql://me@db.internal/x does not answer")


@pytest.mark.anyio
async def test_usage_of_each_api_and_who_sees_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Database(url) as opened:
        store = KeyStore(opened)
        key = store.create(KEY)
        boss = store.create(KeyInfo("boss", frozenset({"manage"})))
    headers = [{"Authorization": f"Bearer {one}"} for one in (key, boss)]
    async with client_of(database=url) as client:

        async def used(header: dict[str, str], **query: str) -> httpx2.Response:
            return await client.get("/usage", params=query, headers=header)

        images = [image_field(), image_field(), {"type": "base64", "value": "bm8="}]
        calls = [body(), body(stream=True), body(image=images, on_error="item"), body(prompts=["<OD>", "<CAPTION>"], prompt=None)]
        for call in calls:
            assert (await client.post("/infer/lmm", json=call, headers=headers[0])).status_code == 200
        url_of_image = f"data:image/png;base64,{image_field()['value']}"
        content = [{"type": "text", "text": "<OD>"}, {"type": "image_url", "image_url": {"url": url_of_image}}]
        for stream in (False, True):
            chat = {"model": "florence-2-base", "messages": [{"role": "user", "content": content}], "stream": stream}
            assert (await client.post("/v1/chat/completions", json=chat, headers=headers[0])).status_code == 200
        assert (await client.post("/infer/lmm", json=body(prompt="<NOPE>"), headers=headers[0])).status_code == 400
        answer = (await used(headers[0], by="key")).json()
        (row,) = answer["usage"]
        assert (answer["key"], row["requests"], row["images"]) == ("team-a", 6, 7)
        assert row["errors"] == {"invalid_image": 1, "unknown_task": 1}
        assert row["answer_tokens"] == 3 * 8
        assert (await used(headers[0], key="boss")).json()["code"] == "forbidden"
        assert (await used(headers[0], key="all")).json()["code"] == "forbidden"
        assert (await used(headers[1])).json()["usage"] == []
        assert [one["key"] for one in (await used(headers[1], key="all", by="key")).json()["usage"]] == ["team-a"]
        assert (await used(headers[1], key="team-a", by="key", since="2100-01-01")).json()["usage"] == []
        assert (await used(headers[1], since="soon")).status_code == 422
        assert (await used(headers[1], key="\0")).json()["code"] == "validation_failed"
        assert (await client.get("/usage")).status_code == 401
        with monkeypatch.context() as patch:
            patch.setattr("florence2.server.accounts.usage.read_usage", _unreachable)
            unread = await used(headers[0])
        assert (unread.status_code, unread.json()["code"]) == (503, "keys_unavailable")
        assert "db.internal" not in unread.text
    with Database(url) as opened:
        assert next(one for one in KeyStore(opened).listed() if one.info.name == "team-a").last_used_at is not None
    async with client_of() as client:
        assert (await client.get("/usage")).json()["code"] == "not_offered"


@pytest.mark.slow
def test_answered_is_at_most_metered_is_at_most_sent_through_a_kill(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/accounts.sqlite"
    with Database(url) as opened:
        key = KeyStore(opened).create(KEY)
    server = start_server(database=url)
    sent, answered, lock, is_over = [0], [0], threading.Lock(), threading.Event()

    def ask() -> None:
        with httpx2.Client(timeout=20) as client:
            while not is_over.is_set():
                with lock:
                    sent[0] += 1
                try:
                    answer = client.post(f"{server.url}/infer/lmm", json=body(api_key=key, image=image_field()))
                except httpx2.HTTPError:
                    return
                assert answer.status_code == 200, answer.text
                with lock:
                    answered[0] += 1

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(2.5)
    server.process.kill()
    for thread in threads:
        thread.join()
    is_over.set()
    server.wait()
    with Database(url) as opened:
        before = sums(opened)[0]
        again = Meter(opened, tmp_path / "accounts.sqlite-usage")
        assert again.flush()
        metered = sums(opened)[0]
        again.close()
    assert before < metered, "the kill left nothing to take up"
    assert 10 < answered[0] <= metered <= sent[0]
