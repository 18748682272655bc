"""From records of a journal to labelled pictures: classes, filters, what is counted, and what is learnt from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from florence2.datasets.record import make_record
from florence2.errors import DatasetError
from florence2.labelling.answers import read_answers
from florence2.labelling.class_names import read_class_map
from florence2.labelling.examples import examples_of
from florence2.labelling.filters import Filters
from florence2.labelling.labelled_pictures import Pictures, draw_of, held_out_below
from florence2.labelling.options import LabelOptions
from florence2.labelling.outputs import labelled_set
from florence2.tasks.coordinates import quantize
from tests.labelling.journals import answer, boxes, class_boxes, record, write_journal

SIZE = (640, 480)
LEFT, RIGHT = (10.0, 20.0, 110.0, 120.0), (300.0, 20.0, 400.0, 120.0)


@pytest.fixture
def one(tmp_path):
    """The only picture of a journal with these answers, and what its data set is."""

    def made(options: LabelOptions, *answers: Any, **fields: Any):
        pictures = Pictures(write_journal(tmp_path, options.asked, record("a.jpg", *answers, **fields)), options)
        classes = pictures.classes()
        return next(iter(pictures)), classes, pictures.losses

    return made


def named(picture):
    return [(thing.label, thing.box) for thing in picture.objects]


def test_objects_of_all_tasks_have_classes(one):
    quad = [10, 10, 50, 10, 50, 20, 10, 20]
    ring = [10, 10, 50, 10, 30, 40]
    options = LabelOptions(
        tasks=["od,ocr-with-region,dense-region-caption,region-proposal,referring-expression-segmentation,caption"], texts=["a  red car"]
    )
    picture, classes, _ = one(
        options,
        answer("<OD>", boxes(("car ", LEFT, 0.5))),
        answer("<OCR_WITH_REGION>", {"quad_boxes": [quad], "labels": ["STOP <5"]}),
        answer("<DENSE_REGION_CAPTION>", boxes(("a red car", RIGHT))),
        answer("<REGION_PROPOSAL>", boxes(("", LEFT))),
        answer("<REFERRING_EXPRESSION_SEGMENTATION>a red car", {"polygons": [[ring]], "labels": [""]}),
        answer("<CAPTION>", " a street\n"),
    )
    assert [(thing.label, thing.text, thing.task) for thing in picture.objects] == [
        ("car", "", "<OD>"),
        ("text", "STOP <5", "<OCR_WITH_REGION>"),
        ("region", "a red car", "<DENSE_REGION_CAPTION>"),
        ("object", "", "<REGION_PROPOSAL>"),
        ("a red car", "", "<REFERRING_EXPRESSION_SEGMENTATION>"),
    ]
    assert classes == ["a red car", "car", "object", "region", "text"]
    assert [thing.score for thing in picture.objects] == [0.5, None, None, None, None]
    assert picture.objects[1].polygons == (tuple(map(float, quad)),)
    assert picture.objects[4].box == (10, 10, 50, 40)
    assert picture.texts == {"<CAPTION>": "a street"}
    assert dict(picture.examples)["<OD>"] == "car<loc_15><loc_41><loc_171><loc_250>"
    assert dict(picture.examples)["<REGION_PROPOSAL>"] == "<loc_15><loc_41><loc_171><loc_250>"
    assert dict(picture.examples)["<REFERRING_EXPRESSION_SEGMENTATION>a red car"] == "<loc_15><loc_20><loc_78><loc_20><loc_46><loc_83>"


def test_what_is_found_by_a_class_is_named_by_it_and_learnt_as_one_detection(one):
    options = LabelOptions(classes="bus, Car, tram", class_map={"bus": "vehicle", "TRAM": ""}, tasks=["caption"])
    tag = "<OPEN_VOCABULARY_DETECTION>"
    picture, classes, losses = one(
        options,
        answer("<CAPTION>", "a street"),
        answer(tag + "bus", class_boxes(("the bus", RIGHT, 0.9))),
        answer(tag + "Car", class_boxes(("cars", LEFT, 0.9))),
        answer(tag + "tram", class_boxes(("tram", LEFT, 0.9))),
    )
    assert classes == ["vehicle", "Car"]
    assert named(picture) == [("vehicle", RIGHT), ("Car", LEFT)]
    learnt = "Car<loc_15><loc_41><loc_171><loc_250>vehicle<loc_468><loc_41><loc_625><loc_250>"
    assert picture.examples == (("<CAPTION>", "a street"), ("<OD>", learnt))
    assert losses.objects == {"of classes that the class map leaves out": 1}


def test_phrases_of_a_caption_are_classes_and_stay_phrases_where_they_are_learnt(one):
    prompt = "<CAPTION_TO_PHRASE_GROUNDING>A red car and the dog."
    picture, classes, _ = one(
        LabelOptions(phrases_from="caption", class_map={"dog": "animal"}),
        answer("<CAPTION>", "A red car and the dog."),
        answer(prompt, boxes(("A red car", LEFT), ("the dog", RIGHT), ("...", LEFT))),
    )
    assert classes == ["animal", "red car"]
    assert named(picture) == [("red car", LEFT), ("animal", RIGHT)]
    assert picture.examples[1][1].replace("<loc_", " ").split()[0] == "A"
    assert "the dog<loc_" in picture.examples[1][1]


def test_filters_count_what_they_leave_out(one):
    options = LabelOptions(tasks=["od"], min_score=0.3, min_size="5%", class_map=read_class_map(["sky="]))
    picture, _, losses = one(
        options,
        answer(
            "<OD>",
            boxes(
                ("car", LEFT, 0.5),
                ("car", RIGHT, 0.2),
                ("sky", RIGHT, 0.9),
                ("ant", (0, 0, 31, 100), 0.9),  # 5 % of 640 are 32
                ("fly", (0, 0, 100, 24), 0.9),
                ("", RIGHT, 0.9),
                ("line", (5, 5, 5, 50), 0.9),
                ("out", (700, 5, 800, 50), 0.9),
            ),
        ),
    )
    assert named(picture) == [("car", LEFT), ("fly", (0, 0, 100, 24))]
    assert losses.objects == {
        "with a score under 0.3": 1,
        "of classes that the class map leaves out": 1,
        "smaller than 5%": 1,
        "without a name": 1,
        "without an area inside the picture": 2,
    }
    assert "left out 2 objects without an area inside the picture" in losses.lines()
    assert picture.examples == (("<OD>", "car<loc_15><loc_41><loc_171><loc_250>fly<loc_0><loc_0><loc_156><loc_50>"),)


def test_boxes_are_cut_at_the_picture_and_swapped_corners_put_right(one):
    picture, _, _ = one(LabelOptions(tasks=["od"]), answer("<OD>", boxes(("car", (-5, 300, 700, 500)), ("bus", (110, 120, 10, 20)))))
    assert named(picture) == [("car", (0, 300, 640, 480)), ("bus", LEFT)]


def test_an_object_that_two_questions_find_counts_once_and_stays_in_both_answers(one):
    near = (LEFT[0] + 1, *LEFT[1:])
    ring = [LEFT[0], LEFT[1], LEFT[2], LEFT[1], LEFT[2], LEFT[3], LEFT[0], LEFT[3]]
    options = LabelOptions(tasks=["od,open-vocabulary-detection"], texts=["car"])
    found = {"bboxes": [], "bboxes_labels": [], "polygons": [[ring]], "polygons_labels": ["car"], "scores": [0.8]}
    picture, _, losses = one(
        options,
        answer("<OD>", boxes(("car", near, 0.5), ("car", near, 0.4), ("bus", near, 0.3))),
        answer("<OPEN_VOCABULARY_DETECTION>car", found),
    )
    (car, bus) = picture.objects
    assert (car.box, car.polygons, car.score, car.task) == (LEFT, (tuple(ring),), 0.8, "<OD>")
    assert bus.label == "bus"
    assert losses.objects == {"found twice": 2}
    assert [text.count("car") for _, text in picture.examples] == [1, 1]
    assert picture.examples[1][1].startswith("car<poly><loc_")


def test_overlapping_classes_are_suppressed_by_score_and_texts_are_not(one):
    inside = (LEFT[0], LEFT[1], LEFT[2], LEFT[3] - 5)
    options = LabelOptions(tasks=["od,ocr-with-region"], suppress_overlaps=0.8)
    quad = [10, 20, 110, 20, 110, 120, 10, 120]
    picture, _, losses = one(
        options,
        answer("<OD>", boxes(("car", LEFT, 0.5), ("van", inside, 0.6), ("bus", RIGHT, 0.1))),
        answer("<OCR_WITH_REGION>", {"quad_boxes": [quad], "labels": ["TAXI"], "scores": [0.99]}),
    )
    assert [thing.label for thing in picture.objects] == ["van", "bus", "text"]
    assert losses.objects == {"overlapped by another class": 1}
    assert "car" not in picture.examples[0][1]


def test_answers_that_teach_nothing_are_no_examples(one):
    options = LabelOptions(tasks=["caption,ocr,od,detailed-caption,ocr-with-region"])
    picture, _, losses = one(
        options,
        answer("<CAPTION>", " "),
        answer("<OCR>", ""),
        answer("<OD>", boxes()),
        answer("<DETAILED_CAPTION>", "a very long", "length"),
        answer("<OCR_WITH_REGION>", {"quad_boxes": [[1, 1, 9, 1, 9, 9, 1, 9]], "labels": ["<"]}),
    )
    assert picture.examples == (("<OCR>", ""), ("<OD>", ""), ("<OCR_WITH_REGION>", ""))
    assert losses.examples == {"empty": 1, "cut short by max_new_tokens": 1}
    assert losses.objects == {"without a name": 1}


def held_out(names: Sequence[str], share: float, seed: int = 0) -> set[str]:
    draws = {name: draw_of(record(name), seed) for name in names}
    return {name for name, draw in draws.items() if draw < held_out_below(list(draws.values()), share)}


def test_the_split_is_that_of_the_name_and_keeps_pages_together():
    names = [f"photos/{number}.jpg" for number in range(1000)]
    chosen = held_out(names, 0.1)
    assert 60 < len(chosen) < 140
    assert chosen != held_out(names, 0.1, seed=1)
    assert chosen < held_out(names, 0.2)
    assert held_out(names[:500], 0.1) == chosen & set(names[:500])
    assert held_out(names, 0) == set()
    assert len({draw_of(record(f"a.pdf#page={page}", part={"page": page}), 3) for page in range(9)}) == 1


def test_both_parts_have_a_picture_where_there_are_two():
    for number in range(50):
        names = [f"{number}.jpg", f"{number}.png", f"{number}.tif"]
        assert len(held_out(names[:2], 0.1)) == len(held_out(names[:2], 0.99)) == 1
        assert len(held_out(names, 0.01)) == 1
        assert len(held_out(names, 0.99)) == 2
    assert held_out(["a.jpg"], 0.5) == set()
    assert held_out([], 0.5) == set()


def test_a_record_that_is_none_is_refused_by_its_name(tmp_path):
    folder = write_journal(tmp_path, {"tasks": ["<OD>"]}, record("a.jpg", answer("<OD>", {"bboxes": [[1, 2]], "labels": ["x"]})))
    with pytest.raises(DatasetError, match=r"record of 'a.jpg' can't be read: the answer can't be read: a box has 4 numbers"):
        labelled_set(folder)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"name": None}, "it has no name"),
        ({"path": None}, "it names no file"),
        ({"size": [0, 5]}, "image_size"),
        ({"answers": None}, "None"),
    ],
)
def test_a_record_that_lacks_something_is_told_with_what_to_do(tmp_path, fields, why):
    folder = write_journal(tmp_path, {"tasks": ["<OD>"]}, {**record("a.jpg", answer("<OD>", boxes())), **fields})
    with pytest.raises(
        DatasetError,
        match=rf"record of 'a.jpg' can't be read: .*{why}.*take its line out of the journal, or .*, and the same command asks again",
    ):
        labelled_set(folder)


LABELS = st.text(st.characters(codec=None), max_size=12) | st.sampled_from(
    ["a<b", "<poly>", "</s>", "<loc_5>", "two\nlines", "<sep>x", "\ud800", "\0", "<OD>"]
)
NUMBERS = st.floats(-50, 800, width=32) | st.integers(-5, 700)
BOXES = st.lists(NUMBERS, min_size=4, max_size=4)
RINGS = st.lists(NUMBERS, min_size=2, max_size=12).filter(lambda ring: len(ring) % 2 == 0)
TAGGED = st.sampled_from(
    ["<OD>", "<DENSE_REGION_CAPTION>", "<REGION_PROPOSAL>", "<CAPTION_TO_PHRASE_GROUNDING>it", "<OPEN_VOCABULARY_DETECTION>it"]
)


@st.composite
def answers(draw) -> dict[str, Any]:
    """An answer of a hostile server: any labels, any numbers, of any task."""
    kind = draw(st.sampled_from(["boxes", "quads", "polygons", "text"]))
    if kind == "text":
        return answer(draw(st.sampled_from(["<CAPTION>", "<OCR>"])), draw(LABELS))
    things = draw(st.lists(st.tuples(LABELS, BOXES, st.floats(0, 1)), max_size=5))
    if kind == "boxes":
        prompt = draw(TAGGED)
        return answer(prompt, class_boxes(*things) if "VOCABULARY" in prompt else boxes(*things))
    if kind == "quads":
        return answer(
            "<OCR_WITH_REGION>", {"quad_boxes": [[*box, *reversed(box)] for _, box, _ in things], "labels": [label for label, *_ in things]}
        )
    shapes = draw(st.lists(st.tuples(LABELS, st.lists(RINGS, min_size=1, max_size=3)), max_size=4))
    rings, labels = [list(rings) for _, rings in shapes], [label for label, _ in shapes]
    if draw(st.booleans()):
        return answer("<REFERRING_EXPRESSION_SEGMENTATION>it", {"polygons": rings, "labels": labels})
    return answer("<OPEN_VOCABULARY_DETECTION>them", {"bboxes": [], "bboxes_labels": [], "polygons": rings, "polygons_labels": labels})


@given(st.lists(answers(), max_size=4, unique_by=lambda one: one["prompt"]), st.booleans(), st.sampled_from([None, 0.5]))
def test_what_is_learnt_is_what_is_written_whatever_was_answered(given, is_by_class, limit):
    lost: Counter[str] = Counter()
    options = LabelOptions(tasks=["od"], min_score=limit, suppress_overlaps=0.5, class_map=read_class_map(["it=that"]))
    kept = Filters(options).apply(read_answers(record("a.jpg", *given), is_by_class, lost), SIZE, lost)
    for thing in kept.objects:
        assert thing.label
        assert 0 <= thing.box[0] < thing.box[2] <= SIZE[0]
        assert 0 <= thing.box[1] < thing.box[3] <= SIZE[1]
    unread: Counter[str] = Counter()
    for prompt, written in examples_of(kept.answers, kept.objects, SIZE, is_by_class=is_by_class, lost=unread):
        learnt = make_record("", None, SIZE, prompt, [written], own_tags=False)  # type: ignore[arg-type]
        answered = [said.thing for one in kept.answers if one.prompt == prompt for said in one.found]
        things = kept.objects if prompt == "<OD>" and is_by_class else answered
        if learnt.question.kind == "text":
            continue
        truth = learnt.truth
        num_learnt = len(truth.boxes) or len(truth.quads) or len(truth.polygons)
        assert num_learnt == len(things)
        if prompt == "<OD>":
            wanted = sorted((thing.label, quantize(thing.box, SIZE)) for thing in things)
            assert sorted((label, quantize(box, SIZE)) for label, box in zip(truth.labels, truth.boxes, strict=True)) == wanted
    assert not unread or set(unread) <= {"empty", "that would not be read back"}
