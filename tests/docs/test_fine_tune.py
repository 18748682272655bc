"""The tutorial on fine-tuning, with fewer scenes and one epoch: its lines run one after the other, and what they made is served."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from florence2.client import InferenceHTTPClient
from florence2.data_sources import read_source
from florence2.datasets.reader import read_dataset
from tests.docs.markdown import ROOT, fences
from tests.training.sets import command, write_pictures

PAGE = (ROOT / "docs" / "fine-tune.md").read_text(encoding="utf-8")


def lines(language: str) -> list[str]:
    return [line for fence in fences(PAGE) if fence.language == language for line in fence.content.splitlines()]


def in_small(line: str) -> list[str]:
    """A command line of the page for a few scenes and one epoch."""
    line = re.sub(r"synthetic:\d+", "synthetic:4", line)
    return shlex.split(re.sub(r"--epochs \d+", "--epochs 1", line))[1:]


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_the_tutorial_runs_and_its_adapter_is_served_beside_the_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    called = [line for line in lines("sh") if line.startswith("florence2 ")]
    assert [line.split()[1] for line in called] == ["evaluate", "evaluate", "train", "evaluate", "evaluate", "serve"]
    for line in called[:-1]:
        assert command(*in_small(line)) == 0, line
    for name in ("arrows-before", "arrows-after", "others-before", "others-after"):
        assert "<OD>" in json.loads((tmp_path / name / "evaluation.json").read_text())["figures"]
    served = [*in_small(called[-1]), "--port", "0", "--log-json"]
    program = [sys.executable, "-m", "florence2.cli", *served]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        address = next(match[0] for line in process.stdout if (match := re.search(r"http://127\.0\.0\.1:\d+", line)))
        client = InferenceHTTPClient(api_url=address, api_key=None)
        picture = Image.new("RGB", (64, 64), "red")
        for model in ("florence-2-demo", "arrows"):
            assert "<OD>" in client.infer_lmm(picture, model_id=model, prompt="<OD>")["response"]
        loaded = {model.model_id for model in client.list_loaded_models().models}
        assert loaded == {"florence-2-demo", "arrows"}
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def test_the_python_block_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    (block,) = (fence for fence in fences(PAGE) if fence.language == "python" and "fine_tune(" in fence.content)
    source, num_scenes = re.subn(r"synthetic:\d+", "synthetic:4", block.content)
    source, num_epochs = re.subn(r"epochs=\d+", "epochs=1", source)
    assert (num_scenes, num_epochs) == (3, 1)
    exec(compile("\n" * (block.line - 1) + source, "docs/fine-tune.md", "exec"), {"__name__": "page"})
    summary, first_step, result = capsys.readouterr().out.splitlines()
    assert "8 records (4 of them rehearsed), 4 held out" in summary
    assert first_step.startswith("step 1 of 1: loss ")
    assert re.match(r"\d+\.\d+ 1 ", result)
    assert (tmp_path / "arrows-from-python" / "adapter" / "adapter_config.json").is_file()


def test_the_page_shows_lines_that_are_read(tmp_path: Path):
    written = lines("json")
    assert len(written) == 5
    write_pictures(tmp_path, 4, (640, 480))
    path = tmp_path / "set.jsonl"
    path.write_text("\n".join(re.sub(r"(\d)\.jpg", r"\1.png", line) for line in written))
    assert len(read_dataset(str(path)).sound()) == 5
    numbers = re.search(r"synthetic:COUNT.*?`tasks=OD,OCR`", PAGE, re.DOTALL)
    assert numbers is not None
    given = "&".join(re.sub("=S$", "=3", re.sub("=PIXELS$", "=96", option)) for option in re.findall(r"`(\w+=[^`]+)`", numbers[0]))
    assert read_source(f"synthetic:2?{given}").sound()
