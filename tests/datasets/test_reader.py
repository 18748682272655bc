"""What is read of JSONL and COCO files, and what is said of what can't be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from florence2.datasets.boxes import CLIPPED
from florence2.datasets.jsonl import AT_THE_EDGE
from florence2.datasets.pictures import MOVED, FilePicture
from florence2.datasets.reader import read_dataset
from florence2.datasets.record import make_record
from florence2.errors import DatasetError
from florence2.tasks import TASKS
from tests.training.sets import write_coco, write_jsonl, write_pictures


def test_a_line_is_a_record(tmp_path):
    write_pictures(tmp_path)
    lines = [
        {"image": "0.png", "prompt": "<OD>", "answer": "cat<loc_100><loc_200><loc_300><loc_400>"},
        {"image": "1.png", "prefix": "<CAPTION>", "suffix": "a cat"},
        "",
        {"image": "2.png", "prompt": "<CAPTION>", "answer": ["a cat", "the cat"]},
        {"image": "2.png", "prompt": "<OD>", "objects": [{"label": "dog", "box": [8.3, 6, 40, 60]}]},
        {"image": "0.png", "prompt": "How many?", "answer": "three"},
    ]
    data = read_dataset(str(write_jsonl(tmp_path / "set.jsonl", lines)))
    assert data.problems == []
    od, caption, several, objects, free = data.sound()
    assert (od.where, od.tag, od.size) == (f"{tmp_path}/set.jsonl:1", "<OD>", (80, 60))
    assert od.truth.labels == ("cat",)
    assert od.truth.boxes[0] == pytest.approx((8.04, 12.03, 24.04, 24.03))
    assert caption.answers == ("a cat",)
    assert several.answers == ("a cat", "the cat")
    assert objects.answers == ("dog<loc_103><loc_100><loc_500><loc_999>",)
    assert objects.truth.boxes == ((8.3, 6.0, 40.0, 60.0),)
    assert free.tag is None
    assert od.picture.open().size == (80, 60)


def test_text_and_region_may_stand_beside_the_tag(tmp_path):
    write_pictures(tmp_path)
    lines = [
        {"image": "0.png", "prompt": "<REGION_TO_CATEGORY>", "region": [8, 6, 40, 60], "answer": "a cat"},
        {"image": "0.png", "prompt": "<OPEN_VOCABULARY_DETECTION>", "text": "cat", "objects": [{"label": "cat", "box": [8, 6, 40, 60]}]},
        {"image": "0.png", "prompt": "How many", "text": "cats?", "answer": "a"},
        {"image": "0.png", "prompt": "<REGION_TO_CATEGORY>", "region": [8, 6, 90, 60], "answer": "a cat"},
        {"image": "0.png", "prompt": "<OD>", "text": 5, "answer": ""},
    ]
    data = read_dataset(str(write_jsonl(tmp_path / "set.jsonl", lines)))
    assert [record.prompt for record in data.records] == [
        "<REGION_TO_CATEGORY><loc_100><loc_100><loc_500><loc_999>",
        "<OPEN_VOCABULARY_DETECTION>cat",
    ]
    assert [problem.where for problem in data.problems] == [f"{tmp_path}/set.jsonl:{line}" for line in (3, 4, 5)]


BAD_LINES = {
    "no JSON": "{",
    "expected an object": "[1]",
    "JSON (": "[" * 100_000,
    "expected image": {"prompt": "<OD>", "answer": ""},
    "expected prompt": {"image": "0.png", "answer": ""},
    "expected answer": {"image": "0.png", "prompt": "<CAPTION>"},
    "expected answer as": {"image": "0.png", "prompt": "<CAPTION>", "answer": [{}]},
    "there is no file": {"image": "missing.png", "prompt": "<CAPTION>", "answer": "a"},
    "damaged or incomplete": {"image": "cut.png", "prompt": "<CAPTION>", "answer": "a"},
    "not an image": {"image": "text.png", "prompt": "<CAPTION>", "answer": "a"},
    "unknown task tag": {"image": "0.png", "prompt": "<CAPTON>", "answer": "a"},
    "needs a text": {"image": "0.png", "prompt": "<CAPTION_TO_PHRASE_GROUNDING>", "answer": "a"},
    "takes no text": {"image": "0.png", "prompt": "<OD>cats", "answer": ""},
    "<loc_1001>": {"image": "0.png", "prompt": "<OD>", "answer": "cat<loc_1><loc_2><loc_1001><loc_4>"},
    "<loc_x>": {"image": "0.png", "prompt": "<CAPTION>", "answer": "cat<loc_x>"},
    "4 locations": {"image": "0.png", "prompt": "<OD>", "answer": "cat<loc_1><loc_2><loc_3>"},
    "a location as PaliGemma writes it": {"image": "0.png", "prompt": "detect cat", "answer": "<loc0012><loc0034><loc0056><loc0078> cat"},
    "got messages: a chat for another model": {"image": "0.png", "messages": []},
    "8 locations": {"image": "0.png", "prompt": "<OCR_WITH_REGION>", "answer": "cat<loc_1><loc_2><loc_3><loc_4>"},
    "pairs of x and y": {"image": "0.png", "prompt": "<REFERRING_EXPRESSION_SEGMENTATION>a", "answer": "<loc_1><loc_2><loc_3>"},
    "x1 ≤ x2": {"image": "0.png", "prompt": "<OD>", "answer": "cat<loc_9><loc_2><loc_3><loc_4>"},
    "has none": {"image": "0.png", "prompt": "<OD>", "answer": "cat"},
    "must not hold <s>": {"image": "0.png", "prompt": "<CAPTION>", "answer": "<s>a"},
    "outside its image": {"image": "0.png", "prompt": "<OD>", "objects": [{"label": "a", "box": [1, 1, 90, 20]}]},
    "x1 < x2": {"image": "0.png", "prompt": "<OD>", "objects": [{"label": "a", "box": [30, 1, 20, 20]}]},
    "four numbers": {"image": "0.png", "prompt": "<OD>", "objects": [{"label": "a", "box": [1, 1, None, 20]}]},
    "[1, 1, inf": '{"image": "0.png", "prompt": "<OD>", "objects": [{"label": "a", "box": [1, 1, 1e999, 20]}]}',
    "[1, 1, nan": '{"image": "0.png", "prompt": "<OD>", "objects": [{"label": "a", "box": [1, 1, NaN, 20]}]}',
    "is a folder": {"image": "..", "prompt": "<CAPTION>", "answer": "a"},
    "can't be read": {"image": "a\0b", "prompt": "<CAPTION>", "answer": "a"},
    "look at the labels": {
        "image": "0.png",
        "prompt": "<OD>",
        "objects": [{"label": "a<loc_1><loc_1><loc_2><loc_2>", "box": [1, 1, 2, 2]}],
    },
    "looks like fractions": {"image": "0.png", "prompt": "<OD>", "objects": [{"label": "a", "box": [0.1, 0.2, 0.9, 1.0]}]},
    "true (a boolean)": {"image": "0.png", "prompt": "really?", "answer": True},
    "got nan": '{"image": "0.png", "prompt": "how many?", "answer": NaN}',
    "got [1, None]": {"image": "0.png", "prompt": "how many?", "answer": [1, None]},
    "expected label": {"image": "0.png", "prompt": "<OD>", "objects": [{"box": [1, 1, 20, 20]}]},
    "objects go with": {"image": "0.png", "prompt": "<CAPTION>", "objects": []},
}


@pytest.fixture
def folder(tmp_path):
    write_pictures(tmp_path)
    (tmp_path / "cut.png").write_bytes((tmp_path / "0.png").read_bytes()[:400])
    (tmp_path / "text.png").write_text("no picture")
    return tmp_path


@pytest.mark.parametrize("message", BAD_LINES)
def test_a_bad_line_is_told_with_its_place(folder, message):
    good = {"image": "0.png", "prompt": "<CAPTION>", "answer": "a"}
    data = read_dataset(str(write_jsonl(folder / "set.jsonl", [good, BAD_LINES[message], good])))
    assert len(data.records) == 2
    assert [problem.where for problem in data.problems] == [f"{folder}/set.jsonl:2"]
    assert message in data.problems[0].message
    assert data.sound(skip_bad=True) == data.records
    with pytest.raises(DatasetError, match="1 problem, 2 valid; skip_bad=True goes on") as caught:
        data.sound()
    assert caught.value.message.startswith(f"{folder}/set.jsonl:2: ")


def test_all_problems_are_told_at_once(folder):
    data = read_dataset(str(write_jsonl(folder / "set.jsonl", list(BAD_LINES.values()))))
    with pytest.raises(DatasetError, match=f"{len(BAD_LINES)} problems, 0 valid") as caught:
        data.sound()
    assert len(caught.value.message.splitlines()) == len(BAD_LINES) + 1
    with pytest.raises(DatasetError, match="holds no records: all"):
        data.sound(skip_bad=True)


def test_own_tags_pass_where_they_are_asked_for(folder):
    path = write_jsonl(folder / "set.jsonl", [{"image": "0.png", "prompt": "<MINE>", "answer": "a"}])
    assert len(read_dataset(str(path)).problems) == 1
    assert read_dataset(str(path), own_tags=True).sound()[0].prompt == "<MINE>"


def test_a_limit_counts_pictures(tmp_path):
    names = write_pictures(tmp_path)
    lines = [{"image": name, "prompt": prompt, "answer": "a"} for name in names for prompt in ("<CAPTION>", "why?")]
    assert len(read_dataset(str(write_jsonl(tmp_path / "set.jsonl", lines)), limit=2).sound()) == 4


def test_lines_of_other_systems_are_read(tmp_path):
    write_pictures(tmp_path)
    line = json.dumps({"image": "1.png", "prompt": "<CAPTION>", "answer": "ä"}, ensure_ascii=False)
    (tmp_path / "set.jsonl").write_bytes(b"\xef\xbb\xbf" + f"{line}\r\n{line}\r\n".encode())
    assert [record.answers for record in read_dataset(str(tmp_path / "set.jsonl")).sound()] == [("ä",)] * 2


def test_an_answer_that_is_a_number_is_the_text_that_it_is_written_as(tmp_path):
    write_pictures(tmp_path)
    numbers = ("5", "4.50", "1e3", "12345678901234567890", "-0.0")
    lines = [f'{{"image": "0.png", "prefix": "How much?", "suffix": {number}}}' for number in numbers]
    lines += ['{"image": "0.png", "prefix": "How much?", "suffix": [1, 2.0]}']
    lines += ['{"image": "0.png", "prefix": "<OD>", "objects": [{"label": 8, "box": [1, 1, 9, 9]}]}']
    *single, several, label = read_dataset(str(write_jsonl(tmp_path / "set.jsonl", lines))).sound()
    assert [record.answers for record in single] == [(number,) for number in numbers]
    assert several.answers == ("1", "2.0")
    assert label.truth.labels == ("8",)


def test_the_edge_itself_is_the_last_bin(tmp_path):
    write_pictures(tmp_path)
    region = "<loc_0><loc_0><loc_1000><loc_1000>"
    lines = [
        {"image": "0.png", "prefix": "<OD>", "suffix": "cat<loc_1000><loc_5><loc_1000><loc_1000>dog<loc_1><loc_2><loc_3><loc_1000>"},
        {"image": "0.png", "prefix": f"<REGION_TO_CATEGORY>{region}", "suffix": "cat"},
        {"image": "0.png", "prefix": "<REGION_TO_CATEGORY>", "region": region, "suffix": "cat"},
        {"image": "0.png", "prefix": "<OD>", "suffix": "cat<loc_1><loc_2><loc_3><loc_4>"},
        {"image": "0.png", "prefix": "<OD>", "suffix": "cat<loc_1000>"},
    ]
    data = read_dataset(str(write_jsonl(tmp_path / "set.jsonl", lines)))
    boxes, inline, beside, _ = data.records
    assert boxes.answers == ("cat<loc_999><loc_5><loc_999><loc_999>dog<loc_1><loc_2><loc_3><loc_999>",)
    assert inline.prompt == beside.prompt == "<REGION_TO_CATEGORY><loc_0><loc_0><loc_999><loc_999>"
    assert dict(data.notices) == {AT_THE_EDGE: 3}
    assert len(data.problems) == 1


def test_a_box_a_little_outside_is_cut_at_the_edge_and_counted(tmp_path):
    write_pictures(tmp_path, 1, size=(80, 60))
    write_pictures(tmp_path / "large", 1, size=(1000, 800))
    things = {
        "0.png": ([-2, 0, 82, 62], [-2.1, 0, 30, 30], [0, 0, 30, 62.5], [1, 1, 80, 60]),
        "large/0.png": ([-5, -4, 1005, 804], [0, 0, 1005.5, 30], [0, 0, 30, 804.5]),
    }
    lines = [{"image": name, "prompt": "<OD>", "objects": [{"label": "a", "box": box}]} for name, boxes in things.items() for box in boxes]
    data = read_dataset(str(write_jsonl(tmp_path / "set.jsonl", lines)))
    assert [record.truth.boxes[0] for record in data.records] == [(0, 0, 80, 60), (1, 1, 80, 60), (0, 0, 1000, 800)]
    assert dict(data.notices) == {CLIPPED: 2}
    assert [problem.where.rpartition(":")[2] for problem in data.problems] == ["2", "3", "6", "7"]


def test_proposals_are_learnt_without_labels(tmp_path):
    write_pictures(tmp_path)
    objects = [{"label": "cat", "box": [8, 6, 40, 60]}, {"box": [1, 1, 9, 9]}]
    path = write_jsonl(tmp_path / "set.jsonl", [{"image": "0.png", "prompt": "<REGION_PROPOSAL>", "objects": objects}])
    assert read_dataset(str(path)).sound()[0].answers == ("<loc_100><loc_100><loc_500><loc_999><loc_12><loc_16><loc_112><loc_150>",)


def test_two_files_of_one_name_are_told_apart(tmp_path):
    line = {"image": "gone.png", "prompt": "<OD>", "answer": ""}
    places = []
    for part in ("train", "valid"):
        path = write_jsonl(tmp_path / part / "set.jsonl", [line])
        coco = write_coco(tmp_path / part / "coco.json", images=[{"id": 1, "file_name": "gone.png"}])
        for name in (path, coco):
            problems = read_dataset(str(name)).problems
            places += [problem.where for problem in problems]
            assert all(problem.where.startswith(str(name)) for problem in problems)
    assert len(set(places)) == len(places) >= 4


def test_pictures_may_lie_elsewhere(tmp_path):
    write_pictures(tmp_path / "pictures")
    path = write_jsonl(tmp_path / "set.jsonl", [{"image": "1.png", "prompt": "<CAPTION>", "answer": "a"}] * 5)
    assert len(read_dataset(str(path), images=tmp_path / "pictures").sound()) == 5


@pytest.mark.slow
@given(st.text(max_size=60))
def test_no_line_breaks_the_reader(tmp_path_factory, line):
    folder = tmp_path_factory.mktemp("lines")
    data = read_dataset(str(write_jsonl(folder / "set.jsonl", [line.replace("\ud800", "")])))
    assert data.records == []


@pytest.mark.parametrize("content", ["{", "[]", '{"images": []}'])
def test_a_file_that_is_no_coco_is_refused(tmp_path, content):
    (tmp_path / "coco.json").write_text(content)
    with pytest.raises(DatasetError, match=r"coco\.json"):
        read_dataset(str(tmp_path / "coco.json"))


@given(st.sampled_from(list(TASKS)), st.text(alphabet="<>loc_0123 abc/s", max_size=40))
def test_an_answer_is_checked_whatever_it_holds(tag, answer):
    prompt = tag + ("<loc_1><loc_2><loc_3><loc_4>" if TASKS[tag].needs == "region" else "a" if TASKS[tag].needs else "")
    try:
        record = make_record("x", FilePicture(Path("x.png")), (80, 60), prompt, [answer], own_tags=False)
    except DatasetError:
        return
    assert json.dumps(record.truth.boxes)


@pytest.mark.parametrize("name", ["/content/set/train/0.png", "C:\\sets\\train\\0.png", "D:/sets/pictures/0.png"])
def test_absolute_paths_of_another_machine_are_found_by_their_last_parts(tmp_path, name):
    write_pictures(tmp_path / "set" / ("pictures" if "pictures" in name else ""))
    line = {"image": name, "prompt": "<CAPTION>", "answer": "a"}
    data = read_dataset(str(write_jsonl(tmp_path / "set" / "set.jsonl", [line] * 2)))
    assert (len(data.sound()), dict(data.notices)) == (2, {MOVED: 1})
    if "train" in name:
        image = {"id": 1, "file_name": name, "width": 80, "height": 60}
        data = read_dataset(str(write_coco(tmp_path / "set" / "coco.json", images=[image], annotations=[])))
        assert (len(data.sound()), dict(data.notices)) == (1, {MOVED: 1})


def test_files_of_captions_are_read_with_all_references(tmp_path):
    captions = [{"id": 1, "image_id": 7, "caption": "a cat"}, {"id": 2, "image_id": "7", "caption": "the cat"}, {"id": 3, "image_id": 8}]
    images = [{"id": 7, "file_name": "0.png"}, {"id": 8, "file_name": "1.png"}, {"id": 9, "file_name": "2.png"}]
    path = tmp_path / "annotations" / "captions_train2017.json"
    write_pictures(tmp_path / "train2017")
    path.parent.mkdir()
    path.write_text(json.dumps({"images": images, "annotations": captions}))
    data = read_dataset(str(path), prompt="<DETAILED_CAPTION>")
    assert [(record.prompt, record.answers) for record in data.records] == [("<DETAILED_CAPTION>", ("a cat", "the cat"))]
    assert [problem.where for problem in data.problems] == [f"{path}: image 8"]
    assert read_dataset(str(path)).records[0].prompt == "<CAPTION>"
    own = [{**captions[0], "prompt": "<MORE_DETAILED_CAPTION>"}, {**captions[1], "prompt": "<CAPTION>"}]
    path.write_text(json.dumps({"images": images, "annotations": own, "categories": []}))
    assert [record.prompt for record in read_dataset(str(path)).sound()] == ["<MORE_DETAILED_CAPTION>", "<CAPTION>"]


NO_DATA_SETS = {
    "export.zip": (b"PK\3\4", "is an archive: unpack it, and give the folder"),
    "0.png": (b"\x89PNG", "is no data set: expected a .jsonl file"),
    "labels.txt": (b"0 0.5 0.5 0.5 0.5", "is no data set: expected a .jsonl file"),
}


@pytest.mark.parametrize("name", NO_DATA_SETS)
def test_files_that_are_no_data_sets(tmp_path, name):
    content, message = NO_DATA_SETS[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        read_dataset(str(tmp_path / name))
