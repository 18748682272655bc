"""Labelling runs with a model that answers at once: each picture exactly once, whatever happens on the way."""

from __future__ import annotations

import io
import json
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from florence2.background import in_background
from florence2.errors import EngineClosed, EngineFailed, InvalidOption, InvalidRequest
from florence2.inputs.selection import Selection
from florence2.labelling.answering import ModelGone
from florence2.labelling.asking import MOST_UNANSWERED
from florence2.labelling.options import LabelOptions
from florence2.labelling.outputs import labelled_set
from florence2.labelling.run import BrokenPicture, rebuild
from tests.labelling.standing_in import OD, StandIn, draw_pictures, journal_lines, run


def problems(output: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (output / "problems.jsonl").read_text().splitlines()]


def test_a_run_never_labels_what_it_has_written(tmp_path):
    pictures = draw_pictures(tmp_path / "in", 3)
    options, output, model = LabelOptions(tasks=("od",), images="copy", formats=("coco",), val_share=0), pictures / "out", StandIn()
    (tmp_path / "list.txt").write_text("".join(f"{pictures}/{name}\n" for name in ("0000.png", "out/coco/train/0001.png")))
    lines: list[str] = []
    for words in (
        str(pictures),
        str(pictures / "**" / "*.png"),
        [*map(str, sorted(pictures.iterdir())), str(output)],
        [str(pictures / "0000.png"), str(output / "coco" / "train" / "0001.png")],
        f"@{tmp_path / 'list.txt'}",
    ):
        run(words, output, model, options, on_message=lines.append)
        assert model.widths == [20, 21, 22], words
    assert f"left out 1 name that lies in the output folder '{output}'" in lines
    with pytest.raises(InvalidRequest, match="all that is named lies in the output folder"):
        run([str(output)], output, model, options)


def test_a_file_that_has_changed_is_asked_again(tmp_path):
    pictures, output, model = draw_pictures(tmp_path / "in", 3), tmp_path / "out", StandIn()
    run(pictures, output, model)
    Image.new("RGB", (90, 70), "red").save(pictures / "0001.png")
    lines: list[str] = []
    run(pictures, output, model, on_message=lines.append)
    assert run(pictures, output, model, on_message=lines.append).num_pictures == 3
    assert model.widths == [20, 21, 22, 90]
    assert [line for line in lines if "changed" in line] == ["1 picture has changed since it was labelled, and is asked about again"]
    assert [picture.size for picture in labelled_set(output).pictures()][1] == (90, 70)


def test_each_picture_is_asked_once_and_new_ones_later(tmp_path):
    pictures, output, model = draw_pictures(tmp_path / "in" / "a", 30), tmp_path / "out", StandIn(lambda *_: time.sleep(0.01))
    draw_pictures(tmp_path / "in" / "b", 2, 30)
    counts = []
    summary = run(tmp_path / "in", output, model, on_progress=lambda *count: counts.append(count))
    assert (summary.num_pictures, summary.num_new, summary.num_problems, summary.is_stopped) == (32, 32, 0, False)
    assert model.widths == list(range(20, 52))
    assert model.most_at_once > 1
    assert counts[0] == (0, 32, 0)
    assert counts[-1] == (32, 32, 0)
    record = min(journal_lines(output), key=lambda line: line["id"])
    assert record == {
        "id": f"{tmp_path}/in/a/0000.png",
        "name": "a/0000.png",
        "root": str(tmp_path / "in"),
        "path": str(pictures / "0000.png"),
        "num_bytes": (pictures / "0000.png").stat().st_size,
        "url": None,
        "part": None,
        "file": None,
        "size": [20, 16],
        "answers": [
            {
                "prompt": "<OD>",
                "response": {"<OD>": {"bboxes": [[0.01, 0.008, 19.99, 15.992]], "labels": ["thing"], "scores": [0.5]}},
                "text": "thing",
                "finish_reason": "stop",
            }
        ],
    }
    draw_pictures(pictures, 3, 40)
    second = run(tmp_path / "in", output, model)
    assert (second.num_pictures, second.num_new) == (35, 3)
    assert Counter(line["id"] for line in journal_lines(output)).most_common(1)[0][1] == 1
    assert len(model.asked) == 35


def test_nothing_new_loads_no_model_and_filters_are_applied_anew(tmp_path, monkeypatch):
    pictures, output = draw_pictures(tmp_path / "in", 3), tmp_path / "out"
    run(pictures, output, StandIn())
    monkeypatch.setattr("florence2.labelling.models.EngineModel", None)
    summary = run(pictures, output, StandIn(), LabelOptions(tasks=("od",), min_score=0.9, formats=("coco",)))
    assert (summary.num_pictures, summary.num_objects, list(summary.outputs)) == (3, 0, ["coco"])
    again = rebuild(output, LabelOptions(tasks=("od",), formats=("csv",)))
    assert (again.num_pictures, again.num_objects, list(again.outputs)) == (3, 3, ["csv"])
    assert list(rebuild(output).outputs) == ["csv"]
    with pytest.raises(InvalidRequest, match=r"--task was <OD> and is <CAPTION>"):
        rebuild(output, LabelOptions(tasks=("caption",)))


def test_the_same_files_under_other_names_are_not_asked_again(tmp_path, monkeypatch):
    pictures, output, model = draw_pictures(tmp_path / "in", 4), tmp_path / "out", StandIn()
    (pictures / "0003.png").write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path)
    for words in ("in", "./in/", str(pictures), "in/*.png"):
        summary = run([words], output, model)
        assert (summary.num_pictures, summary.num_problems) == (3, summary.num_problems)
    draw_pictures(pictures, 1, 3)
    summary = run(["in"], output, model)
    assert (summary.num_pictures, summary.num_problems, len(model.asked)) == (4, 0, 4)


def test_the_phrases_of_a_caption_follow_from_it(tmp_path):
    model = StandIn()
    run(draw_pictures(tmp_path / "in", 2), tmp_path / "out", model, LabelOptions(phrases_from="caption"))
    caption = "What does the image describe?"
    for line in journal_lines(tmp_path / "out"):
        assert [answer["prompt"] for answer in line["answers"]] == ["<CAPTION>", f"<CAPTION_TO_PHRASE_GROUNDING>{caption}"]
    assert sorted(len(prompts) for _, prompts in model.asked) == [1, 1, 1, 1]


def test_a_broken_picture_is_a_problem_until_it_is_mended(tmp_path):
    pictures, output, model = draw_pictures(tmp_path / "in", 3), tmp_path / "out", StandIn()
    (pictures / "0001.png").write_bytes(b"no picture")
    summary = run(pictures, output, model)
    assert (summary.num_pictures, summary.num_problems, summary.problems) == (2, 1, output / "problems.jsonl")
    (problem,) = problems(output)
    assert (problem["id"], problem["path"], problem["code"]) == (f"{pictures}/0001.png", f"{pictures}/0001.png", "invalid_image")
    assert "0001.png" in str(problem["message"])
    assert (run(pictures, output, model).num_problems, len(model.asked)) == (1, 2)
    draw_pictures(pictures, 1, 1)
    summary = run(pictures, output, model)
    assert (summary.num_pictures, summary.num_new, summary.problems) == (3, 1, None)
    assert not (output / "problems.jsonl").exists()


def test_a_picture_that_breaks_after_it_was_labelled_is_a_problem_until_it_is_back(tmp_path):
    pictures, output, model = draw_pictures(tmp_path / "in", 3), tmp_path / "out", StandIn()
    assert run(pictures, output, model).num_pictures == 3
    whole = (pictures / "0001.png").read_bytes()
    for broken in (whole[: len(whole) // 2], b"no picture", b""):
        (pictures / "0001.png").write_bytes(broken)
        summary = run(pictures, output, model)
        assert (summary.num_pictures, summary.num_problems) == (2, 1)
        assert [problem["id"] for problem in problems(output)] == [f"{pictures}/0001.png"]
        assert len(list(labelled_set(output).pictures())) == 2
    (pictures / "0001.png").write_bytes(whole)
    summary = run(pictures, output, model)
    assert (summary.num_pictures, summary.num_problems, len(model.asked)) == (3, 0, 3)
    (pictures / "0001.png").unlink()  # it may be elsewhere by now: its labels stay
    assert rebuild(output).num_pictures == 3


def test_a_picture_that_was_replaced_is_told_when_data_sets_are_built_anew(tmp_path):
    pictures, output, model = draw_pictures(tmp_path / "in", 3), tmp_path / "out", StandIn()
    run(pictures, output, model)
    with Image.open(pictures / "0001.png") as picture:
        size = picture.size
    Image.effect_noise(size, 90).convert("RGB").save(pictures / "0001.png")
    lines: list[str] = []
    assert rebuild(output, on_message=lines.append).num_pictures == 3
    assert [line.partition(",")[0] for line in lines if "0001.png" in line] == ["jsonl: 1 pictures have changed since they were labelled"]


def test_strict_ends_with_the_first_problem_and_keeps_the_rest(tmp_path):
    pictures, output = draw_pictures(tmp_path / "in", 60), tmp_path / "out"
    (pictures / "0010.png").write_bytes(b"no picture")
    with pytest.raises(BrokenPicture, match="0010"):
        run(pictures, output, StandIn(), strict=True)
    lines = journal_lines(output)
    assert 10 <= len(lines) < 60
    assert len(problems(output)) == 1
    (pictures / "0010.png").unlink()
    assert run(pictures, output, StandIn(), strict=True).num_pictures == 59


def test_one_picture_that_the_engine_fails_at_is_its_problem(tmp_path):
    def fail(width: int, prompts: object) -> None:
        if width == 21:
            raise EngineFailed("a step failed")

    summary = run(draw_pictures(tmp_path / "in", 4), tmp_path / "out", StandIn(fail))
    assert (summary.num_pictures, summary.num_problems) == (3, 1)
    assert problems(tmp_path / "out")[0]["code"] == "engine_failed"


def test_a_model_that_answers_nothing_any_more_ends_the_run(tmp_path):
    def fail(width: int, prompts: object) -> None:
        if width >= 25:
            raise EngineFailed("the device is lost")

    pictures, output = draw_pictures(tmp_path / "in", 200), tmp_path / "out"
    with pytest.raises(ModelGone, match=r"in a row got no answer.*the device is lost"):
        run(pictures, output, StandIn(fail))
    lines = journal_lines(output)
    assert sum("answers" in line for line in lines) == 5
    assert MOST_UNANSWERED <= len(lines) - 5 < 60
    assert run(pictures, output, StandIn()).num_pictures == 200


@pytest.mark.parametrize("error", [EngineClosed("closed"), InvalidOption("num_beams is wrong", field="num_beams")])
def test_what_is_wrong_for_all_ends_the_run_and_what_was_answered_is_kept(tmp_path, error):
    def fail(width: int, prompts: object) -> None:
        if width == 40:
            time.sleep(0.05)
            raise error

    pictures, output = draw_pictures(tmp_path / "in", 100), tmp_path / "out"
    with pytest.raises(type(error)):
        run(pictures, output, StandIn(fail))
    assert 20 <= len(journal_lines(output)) < 100
    assert run(pictures, output, StandIn()).num_pictures == 100


def test_a_stopped_run_writes_what_is_there_and_goes_on(tmp_path):
    pictures, output, wanted = draw_pictures(tmp_path / "in", 100), tmp_path / "out", threading.Event()

    def stop(width: int, prompts: object) -> None:
        if width == 50:
            wanted.set()

    summary = run(pictures, output, StandIn(stop), is_to_stop=wanted.is_set)
    assert summary.is_stopped
    assert 30 < summary.num_pictures < 100
    assert len((output / "jsonl" / "train" / "annotations.jsonl").read_text().splitlines()) > 20
    second = run(pictures, output, StandIn())
    assert (second.num_pictures, second.num_new) == (100, 100 - summary.num_pictures)
    assert len({line["id"] for line in journal_lines(output)}) == len(journal_lines(output)) == 100


def test_shards_hold_each_picture_once_and_share_a_folder(tmp_path):
    pictures, output, models = draw_pictures(tmp_path / "in", 60), tmp_path / "out", [StandIn() for _ in range(3)]
    for number, model in enumerate(models, 1):
        run(pictures, output, model, shard=f"{number}/3")
    widths = [width for model in models for width in model.widths]
    assert sorted(widths) == list(range(20, 80))
    assert all(5 <= len(model.asked) <= 40 for model in models)  # ids hold the folder's name, so that numbers differ
    whole = StandIn()
    assert run(pictures, output, whole).num_pictures == 60
    assert not whole.asked


def test_shards_that_work_at_the_same_time_build_the_outputs_one_after_the_other(tmp_path):
    pictures, output = draw_pictures(tmp_path / "in", 40), tmp_path / "out"
    options = LabelOptions(tasks=("od",), formats=("coco", "csv"), val_share=0.0)
    work = [in_background("shard", partial(run, pictures, output, StandIn(), options, shard=f"{number}/4")) for number in range(1, 5)]
    assert sum(one.result(60).num_new for one in work) == 40
    assert max(one.result().num_pictures for one in work) == 40
    assert len(json.loads((output / "coco" / "train" / "_annotations.coco.json").read_text())["images"]) == 40


def test_a_limit_counts_the_pictures_that_are_listed(tmp_path):
    pictures, output, model = draw_pictures(tmp_path / "in", 10), tmp_path / "out", StandIn()
    for limit in (4, 4, 6):
        run(pictures, output, model, limit=limit)
    assert model.widths == list(range(20, 26))
    for number in range(1, 4):
        run(pictures, tmp_path / "shards", StandIn(), limit=5, shard=f"{number}/3")
    names = {
        line["name"]
        for path in (tmp_path / "shards" / ".florence2").glob("journal*")
        for line in journal_lines(tmp_path / "shards", path.name)
    }
    assert names == {f"{number:04}.png" for number in range(5)}


def test_frames_count_and_are_kept_as_files(tmp_path):
    frames = [Image.new("RGB", (20 + number, 16), (9 * number, 0, 0)).resize((24, 16)) for number in range(6)]
    (tmp_path / "in").mkdir()
    frames[0].save(tmp_path / "in" / "a.gif", save_all=True, append_images=frames[1:])
    draw_pictures(tmp_path / "in", 1)
    output, model, selection = tmp_path / "out", StandIn(), Selection(frames="all")
    for limit, expected in ((4, 4), (4, 4), (7, 7)):
        assert run(tmp_path / "in", output, model, selection=selection, limit=limit).num_pictures == expected
    assert len(model.asked) == 7
    kept = {line["id"]: line["file"] for line in journal_lines(output)}
    frame = output / kept[f"{tmp_path}/in/a.gif#frame=2"]
    assert frame.parent == output / "pictures"
    with Image.open(frame) as opened:
        assert (opened.format, opened.size) == ("JPEG", (24, 16))
    assert kept[f"{tmp_path}/in/0000.png"] is None


def test_a_picture_in_a_data_uri_is_kept_as_it_came(tmp_path):
    import base64

    content = (draw_pictures(tmp_path / "in", 1) / "0000.png").read_bytes()
    run(["data:image/png;base64," + base64.b64encode(content).decode()], tmp_path / "out", StandIn())
    (line,) = journal_lines(tmp_path / "out")
    assert (tmp_path / "out" / line["file"]).read_bytes() == content
    assert line["id"].startswith("data:")


def test_each_picture_on_standard_input_is_one_of_its_own(tmp_path, monkeypatch):
    pictures, model = draw_pictures(tmp_path / "in", 2), StandIn()
    for name in ("0000.png", "0001.png", "0000.png"):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO((pictures / name).read_bytes())))
        summary = run(["-"], tmp_path / "out", model)
    assert (summary.num_pictures, model.widths) == (2, [20, 21])


def test_what_is_named_and_not_there_is_said_before_anything_begins(tmp_path):
    draw_pictures(tmp_path / "in", 1)
    for words in (["typo"], [str(tmp_path / "in"), "typo"], [str(tmp_path / "in"), str(tmp_path / "typo/*.png")]):
        with pytest.raises(InvalidRequest, match="typo"):
            run(words, tmp_path / "out", StandIn())
    assert not (tmp_path / "out").exists()
    (tmp_path / "list.txt").write_text(f"{tmp_path}/in/0000.png\ntypo.png\n")
    assert run([f"@{tmp_path}/list.txt"], tmp_path / "out", StandIn(), OD).num_problems == 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"shard": "0/3"}, "shard must be one part"),
        ({"shard": "4/3"}, "shard must be one part"),
        ({"concurrency": 2}, "concurrency= goes with engine="),
        ({"api_key": "x"}, "api_key= goes with engine="),
    ],
)
def test_wrong_calls_are_said_before_anything_begins(tmp_path, more, said):
    with pytest.raises(InvalidOption, match=said):
        run(draw_pictures(tmp_path / "in", 1), tmp_path / "out", StandIn(), **more)
    assert not (tmp_path / "out").exists()
