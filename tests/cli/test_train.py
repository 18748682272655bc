"""``florence2 train`` from end to end: data in, an adapter or a checkpoint that answers out, and mistakes told before anything begins."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image

import florence2
from fixtures.checkpoints import reference_model, write_checkpoint
from florence2.errors import InvalidOption
from florence2.tasks.tokenizer import Tokenizer
from florence2.training import FineTuneData, FineTuneOptions, fine_tune
from florence2.training.fine_tuning import prepare
from florence2.training.preparation import Reports, Start
from florence2.weights import load_model, read_checkpoint
from tests.training.sets import command, write_coco, write_jsonl, write_pictures

SMALL = ("--epochs", 1, "--batch-size", 4, "--precision", "fp32", "--rank", 2)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("base"))


@pytest.fixture
def data(tmp_path):
    names = write_pictures(tmp_path / "set", 6)
    answers = ("cat<loc_1><loc_2><loc_300><loc_400>", "")
    return write_jsonl(tmp_path / "set" / "set.jsonl", [{"image": name, "prompt": "<OD>", "answer": a} for name in names for a in answers])


def test_an_adapter_comes_out_and_answers(base, data, tmp_path, capsys):
    assert command("train", "--model", base, "--data", data, "--output", tmp_path / "run", *SMALL) == 0
    shown = capsys.readouterr()
    assert "LoRA of rank 2 on language and vision" in shown.err
    assert "best validation loss" in shown.out
    adapter = tmp_path / "run" / "adapter"
    assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == str(base)
    with florence2.load(adapter, precision="fp32") as engine:
        assert engine.run(tmp_path / "set" / "0.png", "<OD>", max_new_tokens=8).task == "<OD>"
    assert command("evaluate", "--model", adapter, "--data", data, "--limit", 2, "--max-new-tokens", 8) == 0


def test_the_demo_can_be_fine_tuned_on_scenes(tmp_path, capsys):
    data, known = "synthetic:4?seed=1&kinds=arrow&tasks=OD", "synthetic:2?seed=2&tasks=CAPTION"
    assert (
        command("train", "-m", "florence-2-demo", "--data", data, "--rehearse", known, "--output", tmp_path, *SMALL, "--freeze-vision") == 0
    )
    told = capsys.readouterr().err
    assert "on language," in told
    assert re.search(r"trainable parameters, 5 records \([12] of them rehearsed\), 1 held out", told)
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == "florence-2-demo"


@pytest.mark.slow
def test_what_has_no_answer_is_rehearsed_as_the_model_answers_it(data, tmp_path, capsys):
    lines = [{"image": f"{number}.png", "prompt": prompt} for number in range(2) for prompt in ("<OD>", "<CAPTION>")]
    kept = write_jsonl(data.parent / "kept.jsonl", [*lines, {**lines[0], "answer": "cat<loc_1><loc_2><loc_3><loc_4>"}])
    words = ("train", "-m", "florence-2-demo", "--data", data, "--output", tmp_path / "run", *SMALL)
    assert command(*words, "--rehearse", kept) == 0
    reported = re.search(r"(\d+) records \(\d of them rehearsed\), (\d+) held out", capsys.readouterr().err)
    assert reported is not None
    assert sum(map(int, reported.groups())) == 12 + 5
    sources = FineTuneData((str(data),), rehearse=(str(kept),))
    prepared = prepare(sources, FineTuneOptions(rank=2), Start("florence-2-demo"), tmp_path / "prepared", Reports(), precision="fp32")
    seen = [*prepared.records, *prepared.held_out]
    rehearsed = {(Path(str(record.picture)).name, record.prompt, record.answers[0]) for record in seen if record.is_rehearsed}
    with florence2.load("florence-2-demo") as engine:
        own = {(line["image"], line["prompt"], engine.run(data.parent / line["image"], line["prompt"], num_beams=1).text) for line in lines}
    assert rehearsed == own | {("0.png", "<OD>", "cat<loc_1><loc_2><loc_3><loc_4>")}
    kept.write_text(kept.read_text() + json.dumps({"image": "1.png", "prompt": "why " * 1000}) + "\n")
    words = ("train", "-m", "florence-2-demo", "--data", data, "--output", tmp_path / "second", *SMALL)
    assert command(*words, "--rehearse", kept) == 2
    assert "room" in capsys.readouterr().err
    assert command("train", "-m", "florence-2-demo", "--data", kept, "--output", tmp_path / "second", *SMALL) == 2
    assert "kept.jsonl:1: expected answer" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["native", "original"])
def test_a_whole_checkpoint_comes_out_that_the_reference_loads(layout, data, tmp_path):
    base = write_checkpoint(tmp_path / "base", layout=layout)
    assert command("train", "--model", base, "--data", data, "--output", tmp_path / "run", "--method", "full", *SMALL) == 0
    folder = tmp_path / "run" / "checkpoint"
    assert not (tmp_path / "run" / "adapter").exists()
    theirs = reference_model(folder)
    ours = load_model(read_checkpoint(folder))
    assert theirs.config.text_config.vocab_size == ours.config.text.vocab_size == Tokenizer.load(folder).vocab_size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import AutoProcessor

        processor = AutoProcessor.from_pretrained(folder)
    inputs = processor(images=Image.new("RGB", (80, 60)), text="<OD>", return_tensors="pt")
    theirs_said = theirs.generate(**inputs, num_beams=1, do_sample=False, max_new_tokens=12)[0].tolist()[1:]
    with florence2.load(folder, precision="fp32") as engine:
        ours_said = engine.run(Image.new("RGB", (80, 60)), "<OD>", num_beams=1, max_new_tokens=12).token_ids
    assert ours_said == [token for token in theirs_said if token != 1]


def test_coco_is_learnt_from_and_a_run_goes_on(base, tmp_path, capsys):
    coco = write_coco(tmp_path / "coco.json")
    held_out = write_coco(tmp_path / "held-out" / "coco.json")
    words = ("train", "--model", base, "--data", coco, "--output", tmp_path / "run", *SMALL, "--validation", held_out, "--tensorboard")
    assert command(*words) == 0
    assert list((tmp_path / "run" / "tensorboard").iterdir())
    assert command(*words) == 2
    assert "--resume" in capsys.readouterr().err
    assert command(*words, "--resume", "--epochs", 2, "--merge") == 0
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 1, 2, 2]
    assert (tmp_path / "run" / "checkpoint" / "model.safetensors").exists()


def test_bad_lines_are_told_before_anything_begins(base, data, tmp_path, capsys):
    with data.open("a") as file:
        file.write('{"image": "gone.png", "prompt": "<OD>", "answer": ""}\n{\n')
    words = ("train", "--model", base, "--data", data, "--output", tmp_path / "run", *SMALL)
    assert command(*words) == 2
    told = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in told[:2]] == [f"{data}:13", f"{data}:14"]
    assert "2 problems, 12 valid; --skip-bad" in told[2]
    assert not (tmp_path / "run").exists()
    assert command(*words, "--skip-bad") == 0
    assert "skipped 2, 12 valid" in capsys.readouterr().err


def test_all_data_sets_are_looked_at_before_anything_is_told(data, tmp_path, capsys):
    sets = [write_jsonl(data.parent / f"{name}.jsonl", [{"image": f"{name}.png", "prompt": "<OD>", "answer": ""}]) for name in "abc"]
    words = (
        "train",
        "-m",
        "florence-2-demo",
        "--data",
        data,
        "--data",
        sets[0],
        "--rehearse",
        sets[1],
        "--validation",
        sets[2],
        "--output",
        tmp_path / "run",
    )
    assert command(*words) == 2
    told = capsys.readouterr().err
    assert [f"{name}.jsonl:1: there is no file" in told for name in "abc"] == [True] * 3
    assert "3 problems, 12 valid" in told
    assert command(*words, "--skip-bad") == 2
    assert "holds no records: all 1 are invalid" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_has_lost_nothing(base, data, tmp_path, number):
    words = ("train", "--model", base, "--data", data, "--output", tmp_path / "run", *SMALL, "--epochs", 500, "--patience", 0)
    program = [sys.executable, "-m", "florence2.cli", *map(str, words)]
    process = subprocess.Popen(program, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "run" / "log.jsonl"
    while process.poll() is None and not (log.exists() and log.read_text().count("\n") >= 5):
        time.sleep(0.05)
    for _ in range(2):  # as where a program around this one passes on what the terminal sent to both
        process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopping after this step" in told
    assert told.endswith("the same command with --resume goes on\n")
    taken = json.loads(log.read_text().splitlines()[-1])
    assert torch.load(tmp_path / "run" / "state.pt", weights_only=True)["at"]["step"] == taken["step"]
    assert command(*words, "--resume", "--epochs", taken["epoch"]) == 0


def test_wrong_data_is_told_before_a_model_is_looked_for(tmp_path, capsys):
    for words in (
        ("--data", "nowhere"),
        ("--data", "synthetic:4", "--validation", "nowhere"),
        ("--data", "synthetic:4", "--rehearse", "no"),
    ):
        assert command("train", "-m", "florence-2-none", "-o", tmp_path / "run", *words) == 2
        assert "there is no data set" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data", "nowhere.jsonl"), "there is no data set"),
        (("--data", "synthetic:4", "--images", "nowhere"), "--images must be a folder, got 'nowhere'"),
        (("--data", "synthetic:4", "--method", "half"), "method"),
        (("--data", "synthetic:4", "--precision", "int8"), "fp32 or bf16"),
        (("--data", "synthetic:4", "--validation-share", "2"), "--validation-share must be at least 0 and under 1, got 2.0"),
        (("--data", "synthetic:4", "--epochs", "0"), "epochs"),
        (("--data", "synthetic:4", "--weight-decay", "-1"), "--weight-decay"),
        (("--data", "synthetic:4", "--validation", "synthetic:4?seed=0"), "be measured on have seeds"),
    ],
)
def test_mistakes_are_told(tmp_path, capsys, words, message):
    assert command("train", "-m", "florence-2-demo", "--output", tmp_path / "run", *words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run" / "state.pt").exists()


@pytest.mark.parametrize("written", ["open-vocabulary-detection", "<open_vocabulary_detection>"])
def test_what_is_asked_of_a_coco_file_may_be_written_as_a_task(tmp_path, capsys, written):
    data = write_coco(tmp_path / "set" / "coco.json")
    assert command("evaluate", "-d", data, "-p", written, "--json", "-n", 1, "--max-new-tokens", 4) == 0
    assert list(json.loads(capsys.readouterr().out)["figures"]) == ["<OPEN_VOCABULARY_DETECTION>"]


def without(hidden, *words, folder):
    code = f"import sys; sys.modules[{hidden!r}] = None; from florence2.cli import main; main(sys.argv[1:])"
    return subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, cwd=folder, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hidden", "extra", "words"),
    [
        ("fastapi_offline", "server", ("serve", "--check")),
        ("pycocotools", "evaluate", ("evaluate", "--data", "synthetic:3?tasks=OD&words=0")),
        ("matplotlib", "synthetic", ("evaluate", "--data", "synthetic:3?tasks=OCR")),
        ("matplotlib", "synthetic", ("train", "-m", "florence-2-demo", "-o", "run", "--data", "synthetic:3?tasks=OCR")),
    ],
)
def test_a_missing_package_is_named_with_its_extra(tmp_path, hidden, extra, words):
    ended = without(hidden, *words, folder=tmp_path)
    assert ended.returncode == 1
    assert f"florence2-engine[{extra}]" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
def test_training_and_evaluation_need_no_matplotlib(base, data, tmp_path):
    trained = without("matplotlib", "train", "--model", base, "--data", data, "--output", "run", *SMALL, folder=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert "polyline" in (tmp_path / "run" / "loss.svg").read_text()
    assert (tmp_path / "run" / "log.jsonl").read_text().count('"loss"') > 0
    asked = ("evaluate", "--model", base, "--data", data)
    measured = without("matplotlib", *asked, folder=tmp_path)
    assert measured.returncode == 0, measured.stderr


@pytest.mark.slow
@pytest.mark.parametrize("taken", ["log.jsonl", "loss.svg", "adapter/adapter_config.json", "checkpoint/config.json"])
def test_a_run_writes_over_nothing(base, data, tmp_path, capsys, taken):
    mine = tmp_path / "run" / taken
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    words = ("train", "--model", base, "--data", data, "--output", tmp_path / "run", *SMALL)
    assert command(*words) == 2
    assert f"holds {taken.split('/')[0]} already" in capsys.readouterr().err
    assert mine.read_text() == "mine"
    mine.write_text("")
    if mine.parent != tmp_path / "run":
        mine.unlink()
    assert command(*words) == 0  # nothing of anybody's is there


def test_a_folder_that_cannot_be_is_refused_before_data_are_read(base, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    assert command("train", "--model", base, "--data", "gone.jsonl", "--output", tmp_path / "file" / "run", *SMALL) == 2
    assert "can't be made" in capsys.readouterr().err


def test_figures_are_made_in_a_folder_and_over_nothing(base, data, tmp_path, capsys):
    words = ("evaluate", "--model", base, "--data", data, "--limit", 1, "--max-new-tokens", 4)
    before = data.read_bytes()
    for wrong, told in ((data, "is no folder"), (tmp_path / "set" / "0.png" / "out", "is no folder"), ("figures.json", "got the file")):
        assert command(*words, "--output", wrong) == 2
        assert told in capsys.readouterr().err
    assert data.read_bytes() == before
    out = tmp_path / "deep" / "out"
    assert command("evaluate", "--model", base, "--data", "gone.jsonl", "-o", out) == 2
    assert not out.exists()
    capsys.readouterr()
    assert command(*words, "-o", out) == 0
    assert f"the figures are in {out / 'evaluation.json'}\n" in capsys.readouterr().err
    first = (out / "evaluation.json").read_bytes()
    assert set(json.loads(first)) == {"settings", "figures"}
    assert command(*words, "-o", out, "-q", "--json") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert json.loads(printed.out) == json.loads((out / "evaluation-2.json").read_text()) == json.loads(first)
    assert (out / "evaluation.json").read_bytes() == first


def test_training_goes_on_from_an_adapter_and_what_comes_out_is_whole(base, data, tmp_path, capsys):
    """The second adapter learns upon the first, and knows it: the engine loads both by the second one's folder, wherever it lies."""
    quick = ("train", "--model", base, "--data", data, "--epochs", 1, "--batch-size", 4, "--precision", "fp32", "--learning-rate", "0.02")
    assert command(*quick, "-o", tmp_path / "one", "--rank", 2, "--seed", 1) == 0
    one = tmp_path / "one" / "adapter"
    assert command(*quick, "-o", tmp_path / "two", "--rank", 3, "--seed", 2, "-a", one, "--merge") == 0
    whole = load_model(read_checkpoint(tmp_path / "two" / "checkpoint")).state_dict()
    shutil.move(tmp_path / "two" / "adapter", tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "one")
    stacked = read_checkpoint(tmp_path / "elsewhere")
    assert (stacked.folder, stacked.adapters) == (base, (tmp_path / "elsewhere" / "base", tmp_path / "elsewhere"))
    found = load_model(stacked).state_dict()
    plain = load_model(read_checkpoint(base)).state_dict()
    without_first = load_model(read_checkpoint(base), adapters=[tmp_path / "elsewhere" / "base"]).state_dict()
    name = next(name for name in found if name.endswith("fc1.weight"))
    torch.testing.assert_close(found, {key: whole[key] for key in found}, rtol=0, atol=1e-6)
    assert not torch.equal(found[name], without_first[name])
    assert not torch.equal(found[name], plain[name])


@pytest.mark.slow
def test_a_run_upon_an_adapter_goes_on_with_that_one(base, data, tmp_path, capsys):
    words = ("train", "--model", base, "--data", data, *SMALL)
    for number in (1, 2):
        assert command(*words, "-o", tmp_path / f"{number}", "--seed", number) == 0
    upon = (*words, "-o", tmp_path / "upon")
    assert command(*upon, "-a", tmp_path / "1" / "adapter") == 0
    assert command(*upon, "-a", tmp_path / "1" / "adapter", "--resume", "--epochs", 2) == 0
    options, others = FineTuneOptions(epochs=3, batch_size=4, rank=2), [tmp_path / "2" / "adapter"]
    with pytest.raises(InvalidOption, match="goes on with the adapters") as _error:  # it keeps its frames, and the folder is free still
        fine_tune(data, model=base, output=tmp_path / "upon", options=options, adapters=others, precision="fp32", resume=True)
    capsys.readouterr()
    assert command(*upon, "-a", tmp_path / "2" / "adapter", "--resume", "--epochs", 3) == 2
    assert "goes on with the adapters that it began with" in capsys.readouterr().err
    assert command(*upon, "--resume", "--epochs", 3) == 2
    assert "goes on with the model that it began with" in capsys.readouterr().err
    assert command(*words, "-o", tmp_path / "none", "-a", tmp_path / "nowhere") == 2
