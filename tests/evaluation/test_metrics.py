"""Known answers give known figures."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from florence2.datasets.pictures import FilePicture
from florence2.datasets.record import make_record
from florence2.evaluation.metrics import FREE, MEANINGS, Answered, box_overlaps, compute_metrics, mask_overlap, match
from florence2.tasks.answer import read_answer
from florence2.tasks.prompt import build_prompt

SIZE = (1000, 1000)


def answered(prompt, answers, given, scores=None):
    answers = [answers] if isinstance(answers, str) else answers
    record = make_record("x", FilePicture(Path("x.png")), SIZE, prompt, answers, own_tags=True)
    result = read_answer(build_prompt(prompt, image_size=SIZE, allow_unknown_tag=True), given, SIZE)
    object.__setattr__(result, "scores", scores)
    return Answered(record, result)


def box(label, x1, y1, x2, y2):
    return f"{label}<loc_{x1}><loc_{y1}><loc_{x2}><loc_{y2}>"


def figures(*answers):
    (found,) = compute_metrics(answers).values()
    assert set(found) <= set(MEANINGS)
    return {name: one.value for name, one in found.items()}


def test_detection():
    truth = box("cat", 100, 100, 300, 300) + box("dog", 500, 500, 700, 700)
    assert figures(answered("<OD>", truth, truth)) == pytest.approx({"ap": 1, "ap50": 1, "recall": 1, "precision": 1})
    nothing = figures(answered("<OD>", truth, ""))
    assert nothing == {"ap": 0, "ap50": 0, "recall": 0}
    # Twice the width: an overlap of one half, a right box at 0.5 and none above it; the dog is called another thing.
    rough = box("Cat", 100, 100, 500, 300) + box("fox", 500, 500, 700, 700)
    assert figures(answered("<OD>", truth, rough)) == pytest.approx({"ap": 0.05, "ap50": 0.5, "recall": 0.5, "precision": 0.5})


def test_average_precision_ranks_by_score():
    truth, found = box("cat", 100, 100, 300, 300), box("cat", 600, 600, 700, 700) + box("cat", 100, 100, 300, 300)
    assert figures(answered("<OD>", truth, found, [0.2, 0.9]))["ap50"] == pytest.approx(1.0)
    assert figures(answered("<OD>", truth, found, [0.9, 0.2]))["ap50"] == pytest.approx(0.5)


def test_what_is_found_in_a_crowd_is_neither_right_nor_wrong():
    truth = box("cat", 100, 100, 300, 300)
    one = answered("<OD>", truth, box("cat", 600, 600, 700, 700) + truth, [0.9, 0.5])
    assert figures(one)["ap50"] == pytest.approx(0.5)
    crowd = dataclasses.replace(one.record, ignored=(("cat", (500, 500, 1000, 1000)),))
    assert figures(Answered(crowd, one.result)) == pytest.approx({"ap": 1.0, "ap50": 1.0, "recall": 1.0, "precision": 1.0})
    # Of another name, or around what is right: nothing changes.
    for name, around, precision in (("dog", (500, 500, 1000, 1000), 0.5), ("cat", (50, 50, 400, 400), 0.5)):
        other = dataclasses.replace(one.record, ignored=((name, around),))
        assert figures(Answered(other, one.result))["precision"] == precision


def test_proposals_have_no_labels():
    truth = box("", 100, 100, 300, 300) + box("", 500, 500, 700, 700)[0:]
    assert figures(answered("<REGION_PROPOSAL>", truth, box("", 100, 100, 300, 310))) == {"recall": 0.5, "precision": 1.0}


def test_captions():
    first = ["a red circle and a blue star", "a circle and a star"]
    same = figures(answered("<CAPTION>", first, "a blue star and a red circle"), answered("<CAPTION>", "a cat", "a cat"))
    assert (same["exact"], same["phrases"]) == (0.5, 1.0)
    right = figures(answered("<CAPTION>", "one red cat", "One red cat."), answered("<CAPTION>", "two dogs at play", "two dogs at play"))
    assert right["bleu4"] == pytest.approx(1.0)
    assert right["cider"] == pytest.approx(10 * (3 / 4 + 1) / 2)  # the first has no four words in a row
    assert "cider" not in figures(answered("<CAPTION>", "a cat", "a cat"))
    assert list(compute_metrics([answered("How many?", "two", "two")])) == [FREE]


def test_regions_are_right_or_wrong():
    prompt = "<REGION_TO_CATEGORY><loc_1><loc_1><loc_9><loc_9>"
    found = [answered(prompt, "cat", "cat<loc_1><loc_1><loc_9><loc_9>"), answered(prompt, "cat", "cats")]
    assert figures(*found) == {"exact": 0.5}
    region, other = "<loc_100><loc_100><loc_300><loc_300>", "<loc_100><loc_200><loc_300><loc_300>"
    taught = [answered(prompt, "cat" + region, text) for text in ("cat" + region, "cat" + other, "cats" + region, "cat")]
    assert figures(*taught) == pytest.approx({"exact": 0.75, "region_iou": (1 + 0.5 + 1 + 0) / 4})
    described = figures(answered(prompt.replace("CATEGORY", "DESCRIPTION"), "a red cat" + region, "a red cat" + region))
    assert (described["exact"], described["phrases"], described["region_iou"]) == (1.0, 1.0, 1.0)
    assert "region_iou" not in figures(answered(prompt.replace("CATEGORY", "DESCRIPTION"), "a cat", "a cat" + region))


def test_reading():
    found = figures(answered("<OCR>", "Red cat\n99", "Red  Cat"))
    assert found["word_accuracy"] == pytest.approx(1 / 3)
    assert found["word_f1"] == pytest.approx(2 / 5)
    assert found["character_error"] == pytest.approx(4 / 10)
    assert found["exact"] == 0
    assert figures(answered("<OCR>", "", "")) == {"word_f1": 1.0, "exact": 1.0}
    assert figures(answered("<OCR>", "", "ghost"))["word_f1"] == 0


def test_printed_words_with_places():
    quad = "".join(f"<loc_{value}>" for value in (100, 100, 300, 100, 300, 200, 100, 200))
    other = "".join(f"<loc_{value}>" for value in (600, 600, 800, 600, 800, 700, 600, 700))
    found = figures(answered("<OCR_WITH_REGION>", f"cat{quad}dog{other}", f"cat{quad}Dog{other}"))
    assert found == {"f1": 0.5, "recall": 0.5, "precision": 0.5}  # letters' case counts


def test_grounding_counts_what_is_too_much():
    truth = box("a cat", 100, 100, 300, 300) + box("a dog", 500, 500, 700, 700)
    prompt = "<CAPTION_TO_PHRASE_GROUNDING>a cat and a dog"
    assert figures(answered(prompt, truth, truth))["accuracy"] == 1
    swapped = box("a dog", 100, 100, 300, 300) + box("a cat", 500, 500, 700, 700)
    assert figures(answered(prompt, truth, swapped))["accuracy"] == 0
    detect = "<OPEN_VOCABULARY_DETECTION>cat"
    one = box("cat", 100, 100, 300, 300)
    assert figures(answered(detect, one, one + box("cat", 500, 500, 600, 600)))["accuracy"] == 0.5
    assert figures(answered(detect, one, box("the cat", 100, 100, 300, 300))) == pytest.approx({"accuracy": 1.0, "mean_iou": 1.0})
    assert figures(answered(detect, "", "")) == {"accuracy": 1.0}
    assert figures(answered(detect, "", one)) == {"accuracy": 0.0}


def test_segmentation():
    square = "".join(f"<loc_{value}>" for value in (100, 100, 300, 100, 300, 300, 100, 300))
    half = "".join(f"<loc_{value}>" for value in (100, 100, 200, 100, 200, 300, 100, 300))
    prompt = "<REFERRING_EXPRESSION_SEGMENTATION>the square"
    found = figures(answered(prompt, square, half))
    assert found["mean_iou"] == pytest.approx(0.5, abs=0.01)
    assert figures(answered(prompt, square, "")) == {"mean_iou": 0, "accuracy": 0}


def test_a_found_box_counts_once():
    wanted = [("a", [0, 0, 10, 10]), ("a", [0, 0, 10, 10])]
    assert sorted(match(wanted, [("a", [0, 0, 10, 10])])) == [0, 1]
    assert match(wanted, [("b", [0, 0, 10, 10])]) == [0, 0]
    # The better pair is made first.
    assert match([("a", [0, 0, 10, 6]), ("a", [0, 0, 10, 10])], [("a", [0, 0, 10, 10])]) == [0, 1]
    assert match([], [("a", [0, 0, 1, 1])]) == []


def test_overlaps():
    assert box_overlaps([[0, 0, 10, 10]], [[0, 0, 10, 5], [20, 20, 30, 30]]).tolist() == [[0.5, 0.0]]
    square = [10, 10, 30, 10, 30, 30, 10, 30]
    assert mask_overlap([square], [square], (64, 64)) == 1.0
    assert mask_overlap([square], [], (64, 64)) == 0.0
