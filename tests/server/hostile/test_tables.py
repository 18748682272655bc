"""Every row of the tables against one server: an answer within a second that says what is wrong, and memory that stays."""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.server.fakes import body, image_bytes
from tests.server.hostile.cases import Case, complaint
from tests.server.hostile.fields import questions
from tests.server.process import Server, start_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

NUM_TRIES = 4  # a machine that does other things too may be late; the server alone is not, at least once
NUM_CLIENTS = 3
MODEL = "florence-2-base"
MB = 2**20
# Of the server, beyond what it takes for its first answers: the largest bodies that are under way at once, several times each.
MOST_GROWTH = 350 * MB
MOST_LEFT = 150 * MB
MOST_OF_A_DECODER = 900 * MB

Told = tuple[int, dict[str, Any]]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server with default settings but for those of the table of addresses."""
    from tests.server.hostile import addresses  # tables are built when they are needed: their files take a second

    server = start_server(prelude=addresses.PRELUDE, **addresses.SETTINGS)
    yield server
    assert server.stop() == 0, server.log
    assert "Traceback" not in server.log, server.log
    assert not Path("/tmp/florence2-was-unpickled").exists()


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.url, timeout=30) as client:
        assert client.post("/infer/lmm", json=body()).status_code == 200
        yield client


@pytest.fixture(autouse=True)
def bounded(server: Server, client: httpx2.Client) -> Iterator[None]:
    """Memory is bounded, and the next question is answered."""
    before = _memory(server.process.pid, "VmRSS")
    yield
    response = client.post("/infer/lmm", json=body())
    assert (response.status_code, list(response.json()["response"])) == (200, ["<CAPTION>"])
    assert client.get("/readiness").status_code == 200
    if before is None:
        return
    assert (_memory(server.process.pid, "VmHWM") or 0) - before < MOST_GROWTH
    assert (_memory(server.process.pid, "VmRSS") or 0) - before < MOST_LEFT
    for child in _children(server.process.pid):
        assert (_memory(child, "VmHWM") or 0) < MOST_OF_A_DECODER


def test_pictures(client: httpx2.Client) -> None:
    from tests.server.hostile import images

    ways = (_as_text, _as_form, _as_body, _in_chat)
    way_of = dict(zip((case.name for case in images.TABLE), cycle(ways), strict=False))
    _hold(images.TABLE, lambda case: way_of[case.name](client, case.sent))


def test_pictures_in_json(client: httpx2.Client) -> None:
    from tests.server.hostile import images

    _hold(images.TABLE, lambda case: _as_text(client, case.sent))


def test_requests(server: Server) -> None:
    from tests.server.hostile import requests

    _hold(requests.TABLE, lambda case: _raw(server, case.sent))


def test_addresses(client: httpx2.Client) -> None:
    from tests.server.hostile import addresses

    with addresses.host() as port:

        def ask(case: Case) -> Told:
            url = case.sent.replace("{host}", f"http://127.0.0.1:{port}").replace("{port}", str(port))
            return _told(client.post("/infer/lmm", json=body(image={"type": "url", "value": url})))

        _hold(addresses.TABLE, ask)


def test_wrong_types_in_every_field(client: httpx2.Client) -> None:
    def ask(question: tuple[str, bytes]) -> str | None:
        path, content = question
        response = client.post(path, content=content, headers={"content-type": "application/json"})
        wrong = complaint(Case(path, content, response.status_code), *_told(response))
        if response.status_code < 500 and wrong is None:
            return None
        return f"{path} {content[-200:]!r}: {response.status_code} {response.text[:300]}"

    with ThreadPoolExecutor(NUM_CLIENTS) as pool:
        assert [wrong for wrong in pool.map(ask, questions(MODEL)) if wrong is not None] == []


def _hold(table: list[Case], ask: Callable[[Case], Told]) -> None:
    """Ask for every row, some at a time, and hold the answers against it. What was late among others is asked again alone."""
    assert len({case.name for case in table}) == len(table)

    def asked(case: Case) -> tuple[str | None, float]:
        began = time.monotonic()
        told = ask(case)
        return complaint(case, *told), time.monotonic() - began

    with ThreadPoolExecutor(NUM_CLIENTS) as pool:
        found = dict(zip((case.name for case in table), pool.map(asked, table), strict=True))
    wrong = [what for what, _ in found.values() if what is not None]
    for case in table:
        took = [found[case.name][1]]
        while min(took) > case.within_s and len(took) < NUM_TRIES:
            took.append(asked(case)[1])
        if min(took) > case.within_s:
            wrong.append(f"{case.name}: the answer took {min(took):.2f} s")
    assert wrong == []


def _as_text(client: httpx2.Client, picture: bytes) -> Told:
    return _told(client.post("/infer/lmm", json=body(image={"type": "base64", "value": base64.b64encode(picture).decode()})))


def _as_form(client: httpx2.Client, picture: bytes) -> Told:
    fields = {"model_id": MODEL, "prompt": "<CAPTION>"}
    return _told(client.post("/infer/lmm", data=fields, files={"image": ("a.png", picture, "image/png")}))


def _as_body(client: httpx2.Client, picture: bytes) -> Told:
    """As a JPEG, whatever it is."""
    return _told(client.post(f"/infer/lmm/{MODEL}?prompt=<CAPTION>", content=picture, headers={"content-type": "image/jpeg"}))


def _in_chat(client: httpx2.Client, picture: bytes) -> Told:
    url = f"data:image/webp;base64,{base64.b64encode(picture).decode()}"
    content = [{"type": "text", "text": "<CAPTION>"}, {"type": "image_url", "image_url": {"url": url}}]
    return _told(client.post("/v1/chat/completions", json={"model": MODEL, "messages": [{"role": "user", "content": content}]}))


def _told(response: httpx2.Response) -> Told:
    with suppress(ValueError):
        return response.status_code, response.json()
    return response.status_code, {}


def _raw(server: Server, sent: bytes) -> Told:
    """The answer to bytes that no client sends."""
    url = httpx2.URL(server.url)
    with socket.create_connection((url.host, url.port or 80), timeout=20) as connection, connection.makefile("rb") as stream:
        with suppress(OSError):  # it may be refused before it is sent
            connection.sendall(sent)
        status, length = int(stream.readline().split()[1]), 0
        while line := stream.readline().strip():
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
            assert name.lower() != b"set-cookie"
        with suppress(ValueError):
            return status, json.loads(stream.read(length))
        return status, {}


def _memory(process: int, what: str) -> int | None:
    """Bytes that a process has now (VmRSS), or had at most (VmHWM); None where the system does not say."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith(what + ":"):
                return int(line.split()[1]) * 1024
    return None


def _children(process: int) -> list[int]:
    with suppress(OSError):
        return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    return []


def test_good_pictures_are_read(client: httpx2.Client) -> None:
    for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "AVIF"):
        assert _as_text(client, image_bytes(kind=kind))[0] == 200
