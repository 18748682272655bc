"""Options of a labelling run: what is refused in which words, what is read out of words, and what a journal is compared by."""

from __future__ import annotations

import pytest

from florence2.errors import InvalidRequest
from florence2.labelling.class_names import merged, phrase_class, read_class_map, read_classes_file, split_classes
from florence2.labelling.options import LabelOptions, changes, options_of, size_limit
from florence2.labelling.questions import Plan
from florence2.results import Result


@pytest.mark.parametrize(
    ("given", "field", "message"),
    [
        ({}, "task", "nothing is asked"),
        ({"tasks": ["od"], "classes": ["car"]}, "task", "task od finds objects, and so does classes="),
        ({"tasks": ["ocr-with-region"], "phrases_from": "caption"}, "task", "finds objects, and so does phrases_from"),
        ({"classes": ["car"], "phrases_from": "caption"}, "phrases_from", "phrases_from and classes="),
        ({"phrases_from": "od"}, "phrases_from", "must be one of caption, detailed-caption"),
        ({"phrases_from": "long"}, "phrases_from", "must be one of caption, detailed-caption"),
        ({"tasks": ["region-to-category"]}, "task", "is about a region of one picture"),
        ({"tasks": ["open-vocabulary-detection"]}, "text", "needs a text: add text="),
        ({"tasks": ["caption"], "texts": ["car"]}, "text", "goes with a task that needs one"),
        ({"tasks": ["open-vocabulary-detection"], "texts": ["<OD>"]}, "text", "must not hold a task tag"),
        ({"tasks": ["odd"]}, "task", "unknown task 'odd'"),
        ({"classes": ["car", " "]}, "classes", "holds an empty name"),
        ({"classes": "car,,bus"}, "classes", "holds an empty name"),
        ({"classes": ["size<5"]}, "classes", "without '<'"),
        ({"classes": ["x" * 201]}, "classes", "at most 200 characters"),
        ({"classes": ["car"], "class_map": ["bus=car"]}, "class_map", "names 'bus', which is none of the classes car"),
        ({"classes": ["car"], "class_map": ["CAR="]}, "class_map", "leaves no class"),
        ({"tasks": ["od"], "class_map": ["car"]}, "class_map", "OLD=NEW"),
        ({"tasks": ["od"], "class_map": ["car=bus", "Car=van"]}, "class_map", "names 'Car' twice, as 'bus' and as 'van'"),
        ({"tasks": ["od"], "formats": ["coco,yolov9"]}, "formats", "must be one of coco, yolo"),
        ({"tasks": ["od"], "images": "move"}, "images", "must be one of link, copy, leave"),
        ({"tasks": ["od"], "min_score": 50}, "min_score", "must be from 0 to 1, got 50"),
        ({"tasks": ["od"], "min_score": float("nan")}, "min_score", "must be from 0 to 1"),
        ({"tasks": ["od"], "suppress_overlaps": 0}, "suppress_overlaps", "must be more than 0"),
        ({"tasks": ["od"], "min_size": "small"}, "min_size", "must be pixels, such as 8, or a part"),
        ({"tasks": ["od"], "min_size": "150%"}, "min_size", "must be pixels"),
        ({"tasks": ["od"], "val_share": 1}, "val_share", "at least 0 and under 1"),
        ({"tasks": ["od"], "tiles": "many"}, "tiles", "tiles must be a grid of columns x rows"),
        ({"tasks": ["od"], "tile_overlap": 0.2}, "tile_overlap", "goes with tiles"),
    ],
)
def test_what_can_not_be_is_refused_by_name(given, field, message):
    with pytest.raises(InvalidRequest) as refused:
        Plan(LabelOptions(**given))
    assert message in refused.value.message
    assert refused.value.field == field


def test_classes_are_merged_with_a_notice_and_keep_their_order():
    options = LabelOptions(classes=["traffic  light", "Car", "car", "Traffic Light"])
    assert options.classes == ("traffic light", "Car")
    assert options.notices == ("classes that are named again count once: 'car', 'Traffic Light'",)
    assert Plan(options).first() == ["<OPEN_VOCABULARY_DETECTION>traffic light", "<OPEN_VOCABULARY_DETECTION>Car"]
    assert merged("car, bus,") == (("car", "bus"), ())
    assert split_classes("car") == ["car"]


def test_classes_may_be_named_in_any_script():
    assert LabelOptions(classes=["می‌خواهم", "größe", "자동차"]).classes == ("می‌خواهم", "größe", "자동차")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_of_classes_is_read_as_systems_write_it(tmp_path, encoding):
    path = tmp_path / "classes.txt"
    path.write_bytes("# street\r\ncar\r\n\r\n  traffic light, red  \r\n".encode(encoding))
    assert read_classes_file(path) == ["car", "traffic light, red"]


@pytest.mark.parametrize(("content", "message"), [(b"# none\n\n", "names no class"), (b"caf\xe9\n", "UTF-8"), (None, "can't be read")])
def test_a_file_of_classes_that_is_none_is_refused(tmp_path, content, message):
    path = tmp_path / "classes.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidRequest, match=message) as refused:
        read_classes_file(path)
    assert refused.value.field == "classes_file"


def test_questions_are_asked_once_and_in_their_order():
    options = LabelOptions(tasks=["od,caption", "OD", "open_vocabulary_detection"], texts=["a  car", "a bus"])
    wanted = ["<OD>", "<CAPTION>", "<OPEN_VOCABULARY_DETECTION>a car", "<OPEN_VOCABULARY_DETECTION>a bus"]
    assert Plan(options).first() == wanted
    assert Plan(options).follow_up([]) == []


@pytest.mark.parametrize(
    ("caption", "asked"),
    [
        ("a car and\n a dog", ["<CAPTION_TO_PHRASE_GROUNDING>a car and a dog"]),
        (" \n", []),
        ("", []),
        ("<OD></s><loc_5>", []),
        ("a <OD> 5 < 6</s>", ["<CAPTION_TO_PHRASE_GROUNDING>a 5 < 6"]),
    ],
)
def test_phrases_of_a_caption_are_asked_for_unless_it_is_empty(caption, asked):
    plan = Plan(LabelOptions(phrases_from="Caption", tasks=["ocr"]))
    assert plan.first() == ["<CAPTION>", "<OCR>"]
    results = [Result("<CAPTION>", "text", (10, 10), caption, caption), Result("<OCR>", "text", (10, 10), "a", "a")]
    assert plan.follow_up(results) == asked


@pytest.mark.parametrize(
    ("phrase", "name"),
    [("A red car,", "red car"), ("the dog", "dog"), ("another", "another"), ("“Sign”.", "sign"), ("...", ""), ("a", "a")],
)
def test_phrases_are_classes_without_what_stands_around_them(phrase, name):
    assert phrase_class(phrase) == name


def test_sizes_are_pixels_or_parts():
    assert size_limit("8") == size_limit(8) == (8.0, False)
    assert size_limit(" 2 %") == (0.02, True)


def test_options_travel_as_json_and_changes_are_named():
    options = LabelOptions(classes="car, bus", class_map=read_class_map(["Car=vehicle"]), min_score=0.3, formats=["coco,yolo"])
    assert options_of(options.asked, {**options.written, "of_a_later_version": 1}) == options
    assert options.class_map == {"car": "vehicle"}
    other = LabelOptions(classes="car", num_beams=3, min_score=0.5)
    assert changes(options.asked, other.asked) == ["--classes was car, bus and is car", "--beams was not given and is 3"]
    assert changes(LabelOptions(tasks=["od,ocr"]).asked, LabelOptions(tasks=["ocr", "od"]).asked) == []
    assert changes(options.asked, LabelOptions(classes="bus, car").asked) == ["--classes was car, bus and is bus, car"]
    assert changes(options.asked, LabelOptions(classes="car, bus", min_size=3, formats=["csv"]).asked) == []
