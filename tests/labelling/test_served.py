"""Labelling by a server: busy ones are waited for, lost ones given up in the end, and others than this project's asked simply."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from florence2.errors import InvalidOption
from florence2.labelling.answering import ModelGone
from florence2.labelling.options import LabelOptions
from florence2.labelling.run import label
from tests.client.stub import Received, Reply, Stub, running_stub
from tests.labelling.standing_in import OD, draw_pictures, journal_lines

OWN = {"name": "florence2 server", "version": "1", "uuid": "a"}


@pytest.fixture
def stub():
    with running_stub() as running:
        running.respond = answering(OWN)
        yield running


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("florence2.labelling.served._PAUSE_S", 0.01)
    monkeypatch.setattr("florence2.labelling.served._RETRIES", 1)


def answering(info: dict[str, str]) -> Any:
    """A server's answers, each about the picture that was sent."""

    def respond(received: Received) -> Reply:
        if received.path.startswith("/info"):
            return Reply(body=info)
        asked = received.json
        with Image.open(io.BytesIO(base64.b64decode(asked["image"]["value"]))) as picture:
            size = {"width": picture.width, "height": picture.height}
        response = {"<OD>": {"bboxes": [[1, 2, 9, 9]], "labels": ["dog"]}}
        more = {"response": [response for _ in asked["prompts"]]} if "prompts" in asked else {"response": response}
        return Reply(body={"inference_id": "x", "time": 0.1, "image": size, **more})

    return respond


def run(stub: Stub, pictures: Path, output: Path, options: LabelOptions = OD, **more: Any) -> Any:
    return label(pictures, output, options, engine=stub.url, model="florence-2-base", **more)


def calls(stub: Stub) -> list[dict[str, Any]]:
    return [received.json for received in stub.received if received.path.startswith("/infer")]


def test_many_requests_at_once_with_all_prompts_of_a_picture(stub, tmp_path):
    usual = stub.respond
    stub.respond = lambda received: Reply(**{**vars(usual(received)), "delay_s": 0.02})
    pictures = draw_pictures(tmp_path / "in", 30)
    Image.new("RGB", (90, 16)).save(pictures / "z.bmp")
    summary = run(
        stub, pictures, tmp_path / "out", LabelOptions(classes=[f"class {number}" for number in range(20)]), concurrency=6, api_key="k"
    )
    assert (summary.num_pictures, summary.num_problems) == (31, 0)
    assert 2 < stub.most_under_way <= 6
    assert Counter(len(call["prompts"]) for call in calls(stub)) == {16: 31, 4: 31}
    sent = {call["image"]["value"] for call in calls(stub)}
    assert {base64.b64encode(path.read_bytes()).decode() for path in pictures.glob("*.png")} < sent
    assert len(sent) == 31
    assert {(call["scores"], call["coordinates"], call["raw"], call["api_key"]) for call in calls(stub)} == {(True, "float", True, "k")}


def test_other_servers_are_sent_what_they_know(stub, tmp_path):
    stub.respond = answering({"name": "Other", "version": "1", "uuid": ""})
    run(stub, draw_pictures(tmp_path / "in", 2), tmp_path / "out", LabelOptions(tasks=("od", "ocr"), max_new_tokens=9))
    assert sorted(call["prompt"] for call in calls(stub)) == ["<OCR>", "<OCR>", "<OD>", "<OD>"]
    assert not {"scores", "coordinates", "raw", "prompts", "tiles"} & set().union(*calls(stub))
    (answer, _) = journal_lines(tmp_path / "out")[0]["answers"]
    assert answer["response"] == {"<OD>": {"bboxes": [[1, 2, 9, 9]], "labels": ["dog"]}}
    with pytest.raises(InvalidOption, match="num_beams= is known to servers of florence2 alone"):
        run(stub, tmp_path / "in", tmp_path / "out2", LabelOptions(tasks=("od",), num_beams=2))


def test_a_busy_server_is_waited_for_and_nothing_is_lost(stub, tmp_path):
    usual, lock, count = stub.respond, threading.Lock(), Counter()

    def busy(received: Received) -> Reply:
        with lock:
            count["calls"] += 1
            status = {0: 429, 1: 503, 2: 502, 3: 0}.get(count["calls"] % 5)
        if status is None or received.path.startswith("/info"):
            return usual(received)
        return Reply(status, {"message": "busy"}, headers={"retry-after": "0"} if status in (429, 503) else {})

    stub.respond = busy
    summary = run(stub, draw_pictures(tmp_path / "in", 25), tmp_path / "out", concurrency=4)
    assert (summary.num_pictures, summary.num_problems) == (25, 0)
    assert len({line["id"] for line in journal_lines(tmp_path / "out")}) == len(journal_lines(tmp_path / "out")) == 25


def test_a_lost_server_ends_the_run_and_what_was_answered_is_kept(stub, tmp_path, monkeypatch):
    monkeypatch.setattr("florence2.labelling.served.PATIENCE_S", 0.2)
    usual = stub.respond
    stub.respond = lambda received: usual(received) if len(stub.received) < 12 else Reply(0)
    pictures = draw_pictures(tmp_path / "in", 40)
    with pytest.raises(ModelGone, match=r"no answer for \d"):
        run(stub, pictures, tmp_path / "out", concurrency=4)
    kept = len(journal_lines(tmp_path / "out"))
    assert 5 <= kept <= 11
    stub.respond = usual
    summary = run(stub, pictures, tmp_path / "out")
    assert (summary.num_pictures, summary.num_new) == (40, 40 - kept)


@pytest.mark.parametrize(("status", "is_of_all"), [(400, False), (413, False), (401, True), (404, True)])
def test_a_refusal_is_of_one_picture_or_of_all(stub, tmp_path, status, is_of_all):
    usual = stub.respond
    refused = json.dumps({"message": "no"}).encode()

    def respond(received: Received) -> Reply:
        reply = usual(received)
        is_third = reply.body.get("image", {}).get("width") == 22
        return Reply(status, refused) if is_third else reply

    stub.respond = respond
    pictures = draw_pictures(tmp_path / "in", 4)
    if is_of_all:
        with pytest.raises(ModelGone):
            run(stub, pictures, tmp_path / "out")
    else:
        summary = run(stub, pictures, tmp_path / "out")
        assert (summary.num_pictures, summary.num_problems) == (3, 1)


def test_where_nobody_listens_is_said_soon(tmp_path):
    with pytest.raises(ModelGone, match="is the server running"):
        label(draw_pictures(tmp_path / "in", 1), tmp_path / "out", OD, engine="http://127.0.0.1:9", model="florence-2-base")


def test_a_server_that_says_nothing_of_itself_is_asked_simply(stub, tmp_path):
    usual = stub.respond
    stub.respond = lambda received: Reply(404, {"detail": "Not Found"}) if received.path.startswith("/info") else usual(received)
    assert run(stub, draw_pictures(tmp_path / "in", 2), tmp_path / "out").num_pictures == 2
    assert [call["prompt"] for call in calls(stub)] == ["<OD>", "<OD>"]


def test_an_address_goes_with_a_model(tmp_path):
    with pytest.raises(InvalidOption, match="engine= goes with model="):
        label(draw_pictures(tmp_path / "in", 1), tmp_path / "out", OD, engine="http://localhost:1")
