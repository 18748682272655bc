"""Every record is asked, each picture once, and the answers are measured."""

from __future__ import annotations

import json
from concurrent.futures import Future

import pytest

import florence2
from florence2.data_sources import read_source
from florence2.evaluation.evaluation import evaluate
from florence2.results import Result
from florence2.scenes.synthetic import FIRST_FREE_SEED
from florence2.tasks import TASKS
from florence2.tasks.answer import read_answer
from tests.training.sets import command, write_coco, write_jsonl, write_pictures


class Oracle:
    """An engine that answers with what a function makes of the true answer."""

    def __init__(self, records, change=lambda answer: answer) -> None:
        self.records = list(records)
        self.change = change
        self.num_pictures = 0
        self.options: dict = {}

    def submit_many(self, image, prompts, **options) -> list[Future[Result]]:
        self.num_pictures += 1
        self.options = options
        futures: list[Future[Result]] = []
        for prompt in prompts:
            record = self.records.pop(0)
            assert (record.prompt, record.size) == (prompt, image.size)
            futures.append(Future())
            futures[-1].set_result(read_answer(record.question, self.change(record.answers[0]), record.size))
        return futures


@pytest.fixture(scope="module")
def records():
    return read_source("synthetic:30?objects=1-4", for_training=False).sound()


def test_true_answers_are_perfect(records):
    told = []
    oracle = Oracle(records)
    found = evaluate(oracle, records, progress=told.append, num_beams=2)  # type: ignore[arg-type]
    assert oracle.num_pictures == 30
    assert oracle.options["num_beams"] == 2
    assert told == list(range(1, len(records) + 1))
    assert set(found) == set(TASKS)
    for tag, named in found.items():
        for name, one in named.items():
            wanted = {"character_error": 0.0, "cider": 10.0}.get(name, 1.0)
            # Short answers have no runs of four words, and outlines and boxes are rounded to thousandths.
            slack = 8.0 if name == "cider" else 0.3 if name == "bleu4" else 0.1 if name in ("mean_iou", "ap") else 0.0
            assert wanted - slack <= one.value <= wanted + 1e-9, (tag, name, one)


def test_empty_answers_are_worth_nothing(records):
    asked = [record for record in records if record.answers[0]]
    found = evaluate(Oracle(asked, lambda answer: ""), asked)  # type: ignore[arg-type]
    for tag, named in found.items():
        for name, one in named.items():
            assert one.value == pytest.approx(1.0 if name == "character_error" else 0.0), (tag, name)


def test_prompts_without_room_are_told_and_may_be_skipped(tmp_path, capsys):
    write_pictures(tmp_path, 1)
    lines = [{"image": "0.png", "prompt": prompt, "answer": "a"} for prompt in ("why " * 2000, "<CAPTION>")]
    words = ("evaluate", "-m", "florence-2-demo", "--data", write_jsonl(tmp_path / "set.jsonl", lines))
    assert command(*words) == 2
    told = capsys.readouterr().err.splitlines()
    assert "set.jsonl:1: the prompt is too long" in told[0]
    assert "1 problem, 1 valid" in told[1]
    assert command(*words, "--skip-bad") == 0
    assert "<CAPTION>" in capsys.readouterr().out


def test_the_demo_on_the_command_line(tmp_path, capsys):
    data, output = f"synthetic:4?seed={FIRST_FREE_SEED}&tasks=OD,OCR", tmp_path / "figures"
    assert command("evaluate", "--data", data, "--beams", 1, "--output", output) == 0
    printed = capsys.readouterr().out
    assert "<OD>" in printed
    content = json.loads((output / "evaluation.json").read_text())
    assert content["settings"]["beams"] == 1
    assert set(content["figures"]) == {"<OD>", "<OCR>"}
    with florence2.load("florence-2-demo") as engine:
        again = evaluate(engine, read_source("synthetic:4?tasks=OD,OCR", for_training=False).sound(), num_beams=1)
    assert content["figures"]["<OD>"]["recall"]["value"] == pytest.approx(again["<OD>"]["recall"].value, abs=1e-4)


def test_coco_on_the_command_line(tmp_path, capsys):
    assert command("evaluate", "--data", write_coco(tmp_path / "coco.json"), "--precision", "fp32") == 0
    assert "ap50" in capsys.readouterr().out


def test_bad_data_stops_the_command(tmp_path, capsys):
    path = write_coco(tmp_path / "coco.json", images=[{"id": 1, "file_name": "none.png"}])
    assert command("evaluate", "--data", path) == 2
    assert "coco.json: image 1: there is no file" in capsys.readouterr().err
