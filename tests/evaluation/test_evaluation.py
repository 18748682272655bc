"""Every record is asked, each picture once, and the answers are measured."""

from __future__ import annotations

import json
import sys
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

import florence2
from florence2.data_sources import read_source
from florence2.errors import DatasetError, InvalidOption
from florence2.evaluation import evaluate
from florence2.evaluation.answers import answer_all
from florence2.evaluation.metrics import Answered, compute_metrics
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
            assert (record.question, record.size) == (prompt, image.size)
            futures.append(Future())
            futures[-1].set_result(read_answer(record.question, self.change(record.answers[0]), record.size))
        return futures


@pytest.fixture(scope="module")
def records():
    return read_source("synthetic:30?objects=1-4", for_training=False).sound()


def test_true_answers_are_perfect(records):
    told = []
    oracle = Oracle(records)
    found = compute_metrics(answer_all(oracle, records, progress=told.append, num_beams=2))  # type: ignore[arg-type]
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
    found = compute_metrics(answer_all(Oracle(asked, lambda answer: ""), asked))  # type: ignore[arg-type]
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


@pytest.mark.slow
def test_the_demo_on_the_command_line(tmp_path, capsys):
    data, output = f"synthetic:4?seed={FIRST_FREE_SEED}&tasks=OD,OCR", tmp_path / "figures"
    assert command("evaluate", "--data", data, "--beams", 1, "--output", output) == 0
    printed = capsys.readouterr().out
    assert "<OD>" in printed
    content = json.loads((output / "evaluation.json").read_text())
    assert content["settings"]["beams"] == 1
    assert set(content["figures"]) == {"<OD>", "<OCR>"}
    with florence2.load("florence-2-demo") as engine:
        again = evaluate(read_source("synthetic:4?tasks=OD,OCR", for_training=False).sound(), model=engine, num_beams=1).metrics
    assert content["figures"]["<OD>"]["recall"]["value"] == pytest.approx(again["<OD>"]["recall"].value, abs=1e-4)


def test_coco_on_the_command_line(tmp_path, capsys):
    assert command("evaluate", "--data", write_coco(tmp_path / "coco.json"), "--precision", "fp32") == 0
    assert "ap50" in capsys.readouterr().out


def test_bad_data_stops_the_command(tmp_path, capsys):
    path = write_coco(tmp_path / "coco.json", images=[{"id": 1, "file_name": "none.png"}])
    assert command("evaluate", "--data", path) == 2
    assert "coco.json: image 1: there is no file" in capsys.readouterr().err


def test_from_python_it_is_what_the_command_does(tmp_path):
    write_pictures(tmp_path, 2)
    good = [{"image": f"{number}.png", "prompt": prompt, "answer": "a cat"} for number in range(2) for prompt in ("<CAPTION>", "What?")]
    data = write_jsonl(tmp_path / "set.jsonl", [*good, {"image": "0.png", "prompt": "<CAPTION>"}])
    counts, lines = [], []
    with florence2.load("florence-2-demo") as engine:
        found = evaluate(
            data,
            model=engine,
            tags=["<CAPTION>"],
            skip_bad=True,
            num_beams=1,
            output=tmp_path / "metrics",
            on_progress=lambda *count: counts.append(count),
            on_message=lines.append,
        )
        assert found.answers[0].result.text == engine.run(tmp_path / "0.png", "<CAPTION>", num_beams=1).text
        with pytest.raises(InvalidOption, match="the model is an engine"):
            evaluate(data, model=engine, precision="int8")
    assert [one.record.prompt for one in found.answers] == ["<CAPTION>"] * 2
    assert set(found.metrics) == {"<CAPTION>"}
    assert found.metrics["<CAPTION>"]["exact"].count == 2
    assert (found.model, found.data, found.num_beams) == (str(engine.checkpoint.folder), str(data), 1)
    assert found.path is not None
    assert json.loads(found.path.read_text()) == found.to_dict()
    assert counts == [
        *(("images looked at", done, None) for done in (1, 1, 2, 2)),
        ("images looked at", 2, 2),
        *(("answers", done, 2) for done in (1, 2)),
    ]
    assert "set.jsonl:5" in lines[0]
    assert lines[1].endswith("skipped 1, 4 valid")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"limit": 0}, InvalidOption, "limit must be at least 1"),
        ({"tags": []}, InvalidOption, "tags must be out of <CAPTION>"),
        ({"tags": ["<CAP>"]}, InvalidOption, "got <CAP>"),
        ({"tags": ["<OCR>"]}, DatasetError, "holds no records of <OCR>"),
        ({"num_beams": 0}, InvalidOption, "num_beams"),
        ({"images": "nowhere"}, InvalidOption, "images must be a folder"),
        ({"prompt": "<CAPTION>"}, DatasetError, "a COCO file answers <OD>"),
        ({"output": "figures.json"}, InvalidOption, "takes the folder"),
    ],
)
def test_what_can_not_be_is_refused_before_a_model_is_loaded(tmp_path, monkeypatch, options, error, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("florence2.evaluation.evaluation.load", None)
    with pytest.raises(error, match=message):
        evaluate(write_coco(tmp_path / "coco.json"), **options)


@pytest.mark.parametrize("given", [{"limit": 1}, {"images": "."}])
def test_records_are_all_answered(records, given):
    with pytest.raises(InvalidOption, match=next(iter(given))):
        evaluate(records, **given)


def test_metrics_leave_the_standard_output_to_other_threads(records, monkeypatch):
    """It belongs to the whole process: what redirects it in one thread takes away what others print."""
    seen = set()

    class Watched:
        def write(self, text: str) -> int:
            seen.add(text)
            return len(text)

        def flush(self) -> None: ...

    monkeypatch.setattr(sys, "stdout", watched := Watched())
    answers = [Answered(record, read_answer(record.question, record.answers[0], record.size)) for record in records]
    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(lambda _: compute_metrics(answers), range(8)))) == 8
    assert sys.stdout is watched
    assert seen == set()
