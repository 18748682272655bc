"""``florence2 bench serve`` as a user runs it: tables, JSON, the plot, exit codes, and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from florence2.cli import main
from tests.load_testing.scripted import Asked, Reply, scripted

KEY = "secret-key-1"
FEW = ("--generate", "1", "--size", "64x48", "--warm-up", "0")


@pytest.fixture
def bench(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(["bench", "serve", *map(str, words)])
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return run


async def at_once(asked: Asked) -> Reply:
    return Reply({"message": "full"}, status=429, headers={"Retry-After": "0.05"}) if asked.number == 3 else Reply()


def test_a_table_of_one_load(bench: Any) -> None:
    with scripted(at_once) as server:
        code, out, err = bench(server.url, "--concurrency", 1, "--requests", 6, "--mix", "<OD>=1,<OCR>=1", "--target", "1s", *FEW)
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split()[:5] == ["LOAD", "SENT", "ANSWERED", "REFUSED", "FAILED"]
    assert lines[1].split()[:6] == ["1", "at", "once", "6", "5", "1"]
    assert "WITHIN 1 S" in lines[0]
    assert {line.split()[0] for line in lines if line} >= {"QUESTION", "<OD>", "<OCR>"}
    assert "429    full" in out
    assert "Retry-After" in out
    assert "scripted 1, model tiny, by its lmm API" in err


def test_json_and_plots_of_one_load_and_of_several(bench: Any, tmp_path: Path) -> None:
    for rates, name in (("20", "one"), ("10,20", "several")):
        with scripted(at_once) as server:
            words = (
                "--rate",
                rates,
                "--requests",
                5,
                "--json",
                tmp_path / f"{name}.json",
                "--plot",
                tmp_path / "new" / f"{name}.png",
                *FEW,
            )
            assert bench(server.url, *words)[0] == 0
        result = json.loads((tmp_path / f"{name}.json").read_text())
        assert [run["load"] for run in result["runs"]] == [{"rate": float(rate)} for rate in rates.split(",")]
        with Image.open(tmp_path / "new" / f"{name}.png") as picture:
            assert (picture.format, picture.size) == ("PNG", (1200, 1050))
            assert len(set(picture.convert("RGB").resize((60, 50)).get_flattened_data())) > 50  # something is drawn


def test_json_on_standard_output_stands_alone(bench: Any) -> None:
    with scripted(at_once) as server:
        code, out, err = bench(server.url, "--rate", 50, "--requests", 4, "--json", "-", "--raw", "-q", *FEW)
    assert (code, err) == (0, "")
    assert len(json.loads(out)["runs"][0]["requests"]) == 4


def test_no_result_is_written_over(bench: Any, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("mine")
    with scripted(at_once) as server:
        assert "a-2.json" in bench(server.url, "--rate", 50, "--requests", 2, "--json", tmp_path / "a.json", *FEW)[2]
    assert (tmp_path / "a.json").read_text() == "mine"


def test_the_key_of_the_environment_is_sent_and_never_printed(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLORENCE2_API_KEY", KEY)

    async def repeats_it(asked: Asked) -> Reply:
        return Reply({"message": f"no: {asked.headers['authorization']}"}, status=500) if asked.number else Reply()

    with scripted(repeats_it) as server:
        code, out, err = bench(server.url, "--rate", 50, "--requests", 4, *FEW)
    assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"
    assert code == 0
    assert "no: Bearer" in out
    assert KEY not in out + err


def test_an_address_as_clients_of_openai_write_it(bench: Any) -> None:
    async def behave(_: Asked) -> Reply:
        return Reply({"choices": [{"message": {"content": "a"}}]})

    with scripted(behave, {"/v1/models": {"data": [{"id": "gpt"}]}}) as server:
        code, _, err = bench(f"{server.url}/v1/", "--prompt", "Describe.", "--rate", 50, "--requests", 2, *FEW)
    assert (code, server.asked[0].path) == (0, "/v1/chat/completions")
    assert "a server, model gpt, by its openai API" in err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "--rate 20"),
        (("--rate", "1", "--plot", "a.gif"), "--plot must be a file that ends in .png, .svg, .pdf"),
        (("--rate", "1", "--raw"), "--raw goes with --json"),
        (("--rate", "1", "--arrivals", "often"), "--arrivals must be one of poisson, constant; got 'often'"),
        (("--rate", "1", "--api", "x"), "--api must be one of auto, lmm, openai"),
        (("--rate", "1", "--duration", "x"), "--duration must be a time"),
        (("--rate", "1", "a.jpg", "--generate", "3"), "leave them or IMAGE out"),
        (("--rate", "1", "missing.jpg"), "there is no file 'missing.jpg'"),
        (("--rate", "1", "--json", __file__ + "/a.json"), "can't be made"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_sent(bench: Any, words: tuple[str, ...], told: str) -> None:
    code, out, err = bench("http://127.0.0.1:9", *words)
    assert (code, out) == (2, "")
    assert told in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("url", "code", "told"), [("http://127.0.0.1:9", 1, "can't be reached"), ("localhost:9001", 2, "did you mean http://localhost:9001?")]
)
def test_a_server_that_is_not_there(bench: Any, url: str, code: int, told: str) -> None:
    left, out, err = bench(url, "--rate", 1, *FEW, "-q")
    assert (left, out) == (code, "")
    assert told in err


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of this kind")
def test_ctrl_c_ends_a_test_that_has_not_begun() -> None:
    async def hang(_: Asked) -> Reply:
        return Reply(delay_s=60.0)

    with scripted(hang) as server:
        program = [sys.executable, "-m", "florence2", "bench", "serve", server.url, "--rate", "20", *FEW]
        with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            while not server.asked:
                assert process.poll() is None
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, "")
    assert "stopped before anything was measured" in err


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of this kind")
def test_ctrl_c_reports_what_was_measured() -> None:
    async def behave(_: Asked) -> Reply:
        return Reply(delay_s=0.05)

    with scripted(behave) as server:
        words = ["bench", "serve", server.url, "--rate", "20", "--duration", "300s", "--json", "-", *FEW]
        program = [sys.executable, "-m", "florence2", *words]
        with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            while len(server.asked) < 10:
                assert process.poll() is None
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    result = json.loads(out)
    assert result["runs"][0]["is_cut_short"]
    assert result["runs"][0]["sent"] >= 9
    assert "stopping; what was measured is reported" in err
