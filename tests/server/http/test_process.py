"""A real process with a tiny model: sockets, signals, limits, an orderly end."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.server.fakes import body, image_bytes
from tests.server.process import Server, asked, start_server, tiny_checkpoint

BIG = 30 * 2**20


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = start_server(api_keys="process-key", log_json=True)
    yield server
    assert server.stop() == 0


def post(url: str, **fields: object) -> httpx2.Response:
    return httpx2.post(f"{url}/infer/lmm", json=body(api_key="process-key", **fields), timeout=60)


@pytest.mark.slow
def test_answers_of_a_real_model(server: Server) -> None:
    first = post(server.url, prompt="<OD>")
    again = post(server.url, prompt="<OD>", model_id="florence-pretrains/3")
    assert first.status_code == 200, first.text
    assert set(first.json()["response"]["<OD>"]) == {"bboxes", "labels"}
    assert again.json()["response"] == first.json()["response"]
    assert "server" not in first.headers


def test_all_at_once(server: Server) -> None:
    prompts = ["<OD>", "<CAPTION>", {"prompt": "<REGION_TO_CATEGORY>", "region": [1, 2, 30, 40]}]
    field = {"type": "base64", "value": base64.b64encode(image_bytes()).decode()}
    response = post(server.url, prompt=None, prompts=prompts, image=[field] * 3, scores=True, raw=True, num_beams=3)
    assert response.status_code == 200, response.text
    answers = response.json()
    assert len(answers) == 3
    for answer in answers:
        # Scores may differ in their last digits: the engine computes what comes together in one batch.
        assert answer["raw"][0]["token_ids"] == answers[0]["raw"][0]["token_ids"]
        assert answer["response"][2] == answers[0]["response"][2]
        assert "scores" in answer["response"][0]["<OD>"]
        assert answer["raw"][0]["finish_reason"] in ("stop", "length")


def test_prompt_that_is_too_long_in_tokens(server: Server) -> None:
    response = post(server.url, prompt="a long story " * 100)
    assert response.status_code == 400
    assert "tokens" in response.json()["message"]


def test_large_body_gets_its_answer(server: Server) -> None:
    headers = {"Content-Type": "application/json", "Authorization": "Bearer process-key"}
    announced = httpx2.post(f"{server.url}/infer/lmm", content=b" " * BIG, headers=headers, timeout=60)
    streamed = httpx2.post(f"{server.url}/infer/lmm", content=(b" " * 2**20 for _ in range(30)), headers=headers, timeout=60)
    assert announced.status_code == streamed.status_code == 413


def test_wrong_key_is_told_before_the_body_is_read(server: Server) -> None:
    with socket.create_connection(httpx2.URL(server.url).netloc.decode().rsplit(":")) as connection:  # type: ignore[arg-type]
        head = f"POST /infer/lmm?api_key=wrong HTTP/1.1\r\nHost: x\r\nContent-Length: {BIG}\r\nExpect: 100-continue\r\n\r\n"
        connection.sendall(head.encode())
        connection.settimeout(20)
        assert connection.recv(100).startswith(b"HTTP/1.1 401")


def test_log_is_json_without_keys(server: Server) -> None:
    httpx2.get(f"{server.url}/info", params={"api_key": "process-key"})
    post(server.url)
    server.wait_for(r'"path": "/info"', 10)
    for line in server.log.splitlines():
        assert isinstance(json.loads(line), dict)
    assert "process-key" not in server.log


@pytest.mark.slow
def test_end_waits_for_what_is_under_way() -> None:
    server = start_server(drain_delay_s=1.0, wait_until_ready=False)
    answers: list[httpx2.Response] = []
    # Under way when the signal comes: many images, many beams, and the model is not even loaded.
    images = [{"type": "base64", "value": base64.b64encode(image_bytes((64 + index, 48))).decode()} for index in range(16)]
    caller = threading.Thread(target=lambda: answers.append(post(server.url, image=images, num_beams=8, max_new_tokens=100)))
    caller.start()
    try:
        deadline = time.monotonic() + 30
        while "requests_under_way 128" not in asked(f"{server.url}/metrics").text:
            assert time.monotonic() < deadline
            assert not answers, answers[0].text
        server.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 30
        while (state := asked(f"{server.url}/readiness")).json()["reason"] != "draining":
            assert time.monotonic() < deadline
        assert state.status_code == 503
        assert httpx2.get(f"{server.url}/healthz").status_code == 200
        refused = post(server.url)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    finally:
        code = server.wait()
        caller.join(10)
    assert code == 0, server.log
    assert len(answers[0].json()) == 16
    assert "Traceback" not in server.log


@pytest.mark.slow
def test_end_is_bounded() -> None:
    loose: dict[str, Any] = {"allow_http_urls": True, "allow_urls_without_domain": True, "allow_private_urls": True}
    server = start_server(drain_timeout_s=1, url_timeout_s=60, **loose)
    answers: list[httpx2.Response] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.listen()
        image = {"type": "url", "value": f"http://127.0.0.1:{silent.getsockname()[1]}/a.png"}
        caller = threading.Thread(target=lambda: answers.append(post(server.url, image=image, model_id="florence-2-demo")))
        caller.start()
        connection, _ = silent.accept()
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        try:
            assert server.wait() == 0, server.log
        finally:
            caller.join(10)
            connection.close()
    assert time.monotonic() - began < 20
    assert (answers[0].status_code, answers[0].json()["code"]) == (503, "draining")
    assert "Traceback" not in server.log


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "florence2.server", *arguments]
    names = {name: value for name, value in os.environ.items() if not name.startswith("FLORENCE2_")}
    return subprocess.run(
        command, env={**names, "OMP_NUM_THREADS": "1", **environment}, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.slow
def test_check_says_what_holds_and_asks_every_task() -> None:
    models = json.dumps({"florence-2-demo": str(tiny_checkpoint())})
    done = run("--check", "--port", "0", "--set", f"models={models}", FLORENCE2_API_KEYS="check-key")
    assert done.returncode == 0, done.stderr
    assert "  port = 0  (--port)\n" in done.stdout
    assert '  api_keys = "1 of them"  (FLORENCE2_API_KEYS in the environment)\n' in done.stdout
    assert "host = " not in done.stdout  # as it is by default
    assert len(re.findall(r"^  <\w+> +\d+\.\d\d s  .", done.stdout, re.MULTILINE)) == 15
    assert done.stdout.endswith("all is well: 15 answers of 1 model\n")
    assert "check-key" not in done.stdout
    assert done.stderr == ""  # no line of the log


@pytest.mark.slow
def test_check_reports_every_model_and_what_is_wrong_with_it() -> None:
    models = json.dumps({"mine": str(tiny_checkpoint())})
    words = ("--check", "--model", "/no/such/folder", "--model", "mine", "--set", f"models={models}")
    done = run(*words, FLORENCE2_PROT="1")
    assert (done.returncode, done.stderr) == (1, "florence2: the check found 1 fault; the report says where\n")
    assert "no such setting: FLORENCE2_PROT (did you mean port?)" in done.stdout
    assert "/no/such/folder FAILED: There is no folder /no/such/folder" in done.stdout
    assert len(re.findall(r"^  <\w+> +\d", done.stdout, re.MULTILINE)) == 15
    done = run(*words, "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["ok"], [model["id"] for model in report["models"]]) == (1, False, ["/no/such/folder", "mine"])
    assert "There is no folder" in report["models"][0]["error"]
    assert len(report["models"][1]["tasks"]) == 15
    assert all(task["error"] is None and task["seconds"] > 0 for task in report["models"][1]["tasks"])


@pytest.mark.slow
def test_check_tells_why_a_download_failed() -> None:
    done = run("--check", "--model", "florence-2-base", HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_CACHE="/tmp/none", HF_HUB_OFFLINE="0")
    assert done.returncode == 1
    assert re.search(r"^florence-2-base FAILED: .* could not be fetched .*HF_ENDPOINT, then try again", done.stdout, re.MULTILINE)
    assert done.stderr.startswith("florence2: the check found 1 fault")


def test_json_without_check_is_a_mistake() -> None:
    done = run("--json")
    assert (done.returncode, done.stderr) == (2, "florence2: --json goes with --check; the log is JSON with --log-json\n")


@pytest.mark.slow
def test_the_log_says_what_answers_where_no_model_was_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "florence2.server", "--host", "127.0.0.1", "--port", str(port)]
    for words, is_told in (((), True), (("--model", "florence-2-demo"), False), (("-q",), False)):
        names = {name: value for name, value in os.environ.items() if not name.startswith("FLORENCE2_")}
        server = Server(subprocess.Popen([*command, *words], env=names, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True))
        if words == ("-q",):
            server.url = f"http://127.0.0.1:{port}"
            server.wait_until_it_listens()
            server.wait_until_ready()
        else:
            server.wait_for("ready: florence-2-demo")
        assert server.stop() == 0
        assert ("only requests for florence-2-demo reach it" in server.log) == is_told
        assert ("--model florence-2-base at the start" in server.log) == is_told
        assert "try: curl" not in server.log  # that is for terminals


@pytest.mark.slow
def test_a_terminal_is_told_the_call_to_begin_with() -> None:
    ours, its = os.openpty()
    command = [sys.executable, "-m", "florence2.server", "--port", "0"]
    names = {name: value for name, value in os.environ.items() if not name.startswith("FLORENCE2_")}
    models = json.dumps({"florence-2-demo": str(tiny_checkpoint())})
    process = subprocess.Popen([*command, "--set", f"models={models}"], env={**names, "TERM": "xterm"}, stderr=its, stdout=its)
    os.close(its)
    seen = b""
    try:
        while b"prompt=<CAPTION>'" not in seen:
            seen += os.read(ours, 4096)
    finally:
        process.terminate()
        process.wait(30)
        os.close(ours)
    port = re.search(rb"running on http://127.0.0.1:(\d+)", seen)
    assert port is not None
    url = f"http://localhost:{port[1].decode()}"
    told = f"open {url} or try: curl {url}/infer/lmm/florence-2-demo -F image=@photo.jpg --form-string 'prompt=<CAPTION>'"
    assert told.encode() in seen


@pytest.mark.slow
def test_model_that_is_not_there_ends_the_server() -> None:
    done = run("--model", "/no/such/folder", "--port", "0")
    assert done.returncode == 1
    assert "a model could not be loaded" in done.stderr


@pytest.mark.slow
def test_address_that_is_taken() -> None:
    models = json.dumps({"florence-2-demo": str(tiny_checkpoint())})
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("--port", str(taken.getsockname()[1]), "--set", f"models={models}")
    assert done.returncode == 1
    assert "can't listen on 127.0.0.1" in done.stderr


@pytest.mark.slow
def test_mistakes_in_flags() -> None:
    done = run("--profile", "cloud", FLORENCE2_PROT="1")
    assert done.returncode == 2
    assert "dedicated" in done.stderr
    assert "Traceback" not in done.stderr
