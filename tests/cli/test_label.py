"""``florence2 label`` as its users call it: words in, a data set out, and real processes that are interrupted and killed."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import httpx2
import pytest

from florence2.cli.label import command
from florence2.datasets.writers import FORMATS
from florence2.labelling import LabelOptions
from tests.labelling.journals import record, write_journal
from tests.labelling.standing_in import draw_pictures, journal_lines
from tests.server.process import running_server, tiny_checkpoint


@pytest.fixture
def label(cli, folder: Path):
    def run(*arguments: object) -> tuple[int, str, str]:
        return cli("label", "--model", folder, "--device", "cpu", "--max-new-tokens", 8, "--beams", 1, *arguments)

    return run


def test_a_folder_becomes_data_sets(label, cli, request, tmp_path):
    pictures, output = draw_pictures(tmp_path / "in", 3), tmp_path / "out"
    (pictures / "0002.png").write_bytes(b"no picture")
    code, out, err = label(pictures, "-t", "od,caption", "-f", "coco,csv", "-o", output, "--preview", "--class-map", "person=man,dog=")
    assert code == 0, err
    assert out.startswith("2 pictures, ")
    assert f"1 problem: {output}/problems.jsonl\n" in out
    assert {path.name for path in output.iterdir()} == {".florence2", "coco", "csv", "preview", "problems.jsonl"}
    assert label(pictures, "-t", "od,caption", "-o", tmp_path / "tiled", "--tiles", "2x1", "--tile-overlap", 0.1)[0] == 0
    (pictures / "0002.png").unlink()
    request.getfixturevalue("no_model")
    code, out, _ = label(pictures, "-t", "od", "-t", "caption", "-f", "jsonl", "-o", output, "--json")
    told = json.loads(out)
    assert (code, told["pictures"], told["new"], told["formats"]) == (0, 2, 0, {"jsonl": f"{output}/jsonl"})
    assert f"florence2 train --data {output}/jsonl" in label(pictures, "-t", "od,caption", "-o", output)[1]
    code, out, err = cli("label", output, "-f", "yolo", "--min-score", 0.5)
    assert (code, out.splitlines()[0].split(",")[0]) == (0, "2 pictures (none new)")
    assert "nothing is asked" in err
    for words, flag in ((["--model", "florence-2-base"], "--model"), (["--limit", 3], "--limit"), (["--pages", "1"], "--pages")):
        code, _, err = cli("label", output, "-f", "coco", *words)
        assert (code, err.startswith(f"florence2: {flag} is about asking, and of the folder of a run alone nothing is asked")) == (2, True)


@pytest.mark.slow
def test_a_server_that_is_not_there_has_nothing_kept(cli, monkeypatch, tmp_path):
    draw_pictures(tmp_path / "in", 1)
    monkeypatch.chdir(tmp_path)
    code, _, err = cli("label", "in", "-t", "od", "-o", "out", "--engine", "http://127.0.0.1:1", "-m", "a")
    assert (code, len(err.splitlines()), "is the server running?" in err) == (1, 1, True)


def test_a_run_of_broken_pictures_alone_is_a_failure_when_it_is_built_anew_too(cli, tmp_path):
    write_journal(tmp_path, LabelOptions(tasks=("od",)).asked, record("a.png", error={"code": "invalid_image", "message": "x"}))
    assert cli("label", tmp_path)[0] == 1


def test_every_option_has_a_flag(cli):
    assert tuple(command.FORMATS) == tuple(FORMATS)  # the command's own list spares its help an import
    named = {"tasks": "task", "texts": "text", "num_beams": "beams", "formats": "format"}
    words = cli("label", "--help")[1].split()
    for each in fields(LabelOptions):
        if each.init:
            assert f"--{named.get(each.name, each.name).replace('_', '-')}" in " ".join(words).replace(",", " ").replace("/", " ").split()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["in", "-t", "od"], "--output is missing: the folder for what is written; see florence2 label --help"),
        (["in", "-o", "out"], "nothing is asked: give --task (such as od), --classes or --phrases-from"),
        (
            ["in", "-t", "od", "-o", "in"],
            "in holds other things than a labelling run (0000.png); choose a new or an empty folder for --output",
        ),
        (["in", "-t", "od", "-o", "out", "--shard", "17/16"], "--shard must be one part of several, such as 3/16 (counted from 1 to 16)"),
        (["in", "-t", "od", "-o", "out", "--engine", "http://localhost:1"], "--engine goes with --model"),
        (
            ["in", "-t", "od", "-o", "out", "--engine", "localhost:1", "-m", "a"],
            "--engine must be an address such as http://localhost:9001",
        ),
        (["in", "-t", "od", "-o", "out", "--concurrency", "3"], "--concurrency goes with --engine, the address of a server; leave"),
        (["in", "-t", "od", "-o", "out", "--pages", "x"], "--pages must be numbers from 1"),
        (["in", "--classes", "a", "--classes-file", "b", "-o", "out"], "--classes and --classes-file are given"),
        (["in", "--classes", "a", "--class-map", "b", "-o", "out"], "--class-map takes OLD=NEW or a file with such lines, got 'b'"),
        (["gone", "-t", "od", "-o", "out"], "there is no file 'gone'"),
        (["in", "-t", "od", "-o", "out", "-f", "pascal"], "--format must be one of coco, yolo"),
    ],
)
def test_wrong_calls_are_one_line_and_make_nothing(cli, no_model, monkeypatch, tmp_path, words, told):
    draw_pictures(tmp_path / "in", 1)
    monkeypatch.chdir(tmp_path)
    code, out, err = cli("label", *words)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith(f"florence2: {told}")
    assert not (tmp_path / "out").exists()


# Real processes


def start(pictures: Path, output: Path, *words: str, prepare: Callable[[], None] | None = None) -> subprocess.Popen[str]:
    """The command on its way."""
    command = [sys.executable, "-m", "florence2", "label", str(pictures), "-o", str(output), "-t", "od", "-f", "coco,jsonl", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=prepare)


def wait_for_lines(output: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Wait until the journal has so many records."""
    path = output / ".florence2" / "journal.jsonl"
    for _ in range(6000):
        if path.is_file() and path.read_bytes().count(b"\n") > count:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    raise AssertionError("no answers")


@pytest.mark.slow
def test_a_run_goes_on_after_every_end(tmp_path):
    pictures, output = draw_pictures(tmp_path / "in", 120), tmp_path / "out"
    model = ("-m", str(tiny_checkpoint()), "--device", "cpu")
    num_before = 0
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)):
        process = start(pictures, output, *model)
        wait_for_lines(output, num_before + 10, process)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, err
        if number != signal.SIGKILL:
            num_before = len(journal_lines(output))
            assert out.startswith(f"{num_before} pictures")
            assert "stopping after the pictures under way" in err
            assert "the same command goes on" in err
            coco = json.loads((output / "coco" / "train" / "_annotations.coco.json").read_text())
            assert num_before * 0.7 < len(coco["images"]) < 120
    size = (output / ".florence2" / "journal.jsonl").stat().st_size
    full = start(pictures, output, *model, prepare=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size + 3000, size + 3000)))
    _, err = full.communicate(timeout=60)
    assert full.returncode == 1
    assert "all answers before this one are kept" in err
    last = start(pictures, output, *model, "--json")
    out, err = last.communicate(timeout=120)
    assert last.returncode == 0, err
    assert json.loads(out)["pictures"] == 120
    ids = [line["id"] for line in journal_lines(output)]
    assert sorted(ids) == sorted(str(path) for path in pictures.iterdir())


@pytest.mark.slow
def test_a_real_server_that_is_too_busy_loses_nothing(cli, tmp_path):
    with running_server(max_requests=2) as url:
        pictures = draw_pictures(tmp_path / "in", 10)
        words = ("-t", "od", "-t", "ocr", "-m", "florence-2-base", "--engine", url, "--concurrency", 5, "--json", "-o", tmp_path / "out")
        code, out, err = cli("label", pictures, *words)
        refused = [line for line in httpx2.get(f"{url}/metrics").text.splitlines() if "429" in line]
    assert code == 0, err
    told = json.loads(out)
    assert (told["pictures"], told["problems"]) == (10, 0)
    assert refused
    assert len({line["id"] for line in journal_lines(tmp_path / "out")}) == 10
