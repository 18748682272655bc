"""Answers that would be learnt to the letter and read as something else are refused, for every task."""

from __future__ import annotations

import pytest

from florence2.datasets.round_trip import check_answer, check_survival
from florence2.errors import DatasetError
from florence2.tasks import TASKS
from florence2.tasks.parsing import find_objects
from florence2.tasks.prompt import build_prompt
from florence2.tasks.tokenizer import Tokenizer
from florence2.weights import resolve

BOX = "<loc_10><loc_20><loc_30><loc_40>"
QUAD = BOX * 2
LABELLED = ("<OD>", "<DENSE_REGION_CAPTION>", "<CAPTION_TO_PHRASE_GROUNDING>", "<OPEN_VOCABULARY_DETECTION>")
BARE = ("<REGION_PROPOSAL>", "<REFERRING_EXPRESSION_SEGMENTATION>", "<REGION_TO_SEGMENTATION>")
TEXTS = [tag for tag, task in TASKS.items() if task.grammar == "text"]


def question(tag):
    needs = TASKS[tag].needs
    return build_prompt(tag + {"text": "it", "region": BOX, None: ""}[needs])


@pytest.mark.parametrize("tag", LABELLED)
@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("size<5", "'size<' would be lost"),
        ("a<b>", "'a<' would be lost"),
        ("a <b> c", "'a <' would be lost"),
        ("<", "would be lost"),
        ("<od>cat", "would be lost"),
        ("cat<sep>", "would be lost"),
        ("cat<and>dog", "would be lost"),
        ("cat<loc_5>", "4 locations behind each label, got 5"),
        ("ca<loc_5>t", "4 locations behind each label, got 1"),
        ("two\nlines", "a label is one line"),
        (" ", "a label is empty"),
        ("", "begins with a place|a label stands before each place"),
        ("cat<pad>", "must not hold <pad>"),
    ],
)
def test_labels_that_do_not_survive_are_refused(tag, label, message):
    with pytest.raises(DatasetError, match=message):
        check_answer(f"dog{BOX}{label}{BOX}", question(tag)) if label else check_answer(f"{BOX}", question(tag))


@pytest.mark.parametrize("tag", LABELLED)
@pytest.mark.parametrize("label", ["a>b", "5 > 4", "&lt;5", "größer", "a 🐱", "loc_5", " padded ", "\nnext line", "C#/[x]"])
def test_labels_that_survive_are_taken(tag, label):
    answer = f"dog{BOX}{label}{BOX}{BOX}"
    check_answer(answer, question(tag))
    assert [found.label for found in find_objects(TASKS[tag].grammar, answer)] == ["dog", label.strip(), label.strip()]


@pytest.mark.parametrize("tag", BARE)
@pytest.mark.parametrize("answer", [f"cat{QUAD}", f"{QUAD}cat", f"{QUAD} , {QUAD}"])
def test_tasks_that_name_nothing_take_no_label(tag, answer):
    with pytest.raises(DatasetError, match="this task names nothing"):
        check_answer(answer, question(tag))
    check_answer(QUAD, question(tag))


@pytest.mark.parametrize("tag", BARE[1:])
def test_outlines_of_several_parts_are_taken(tag):
    check_answer(f"<poly>{QUAD}<sep>{QUAD}</poly><poly>{QUAD}</poly>", question(tag))


def test_outlines_in_detection_are_named():
    asked = question("<OPEN_VOCABULARY_DETECTION>")
    check_answer(f"cat<poly>{QUAD}</poly>", asked)
    for answer in (f"<poly>{QUAD}</poly>", f"size<5<poly>{QUAD}</poly>"):
        with pytest.raises(DatasetError, match="would be lost"):
            check_answer(answer, asked)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (f"first\nsecond{QUAD}", "a label is one line, and 'first' would be lost"),
        (f"one{QUAD}first\r\nsecond{QUAD}", "a label is one line, and 'first' would be lost"),
        (f"first\n\nsecond\nthird{QUAD}", "'first second' would be lost"),
        (f" {QUAD}", "a label is empty"),
        (f"one{QUAD}two", "'two' would be lost"),
        (f"on<loc_1>e{QUAD}", "8 locations behind each label, got 1"),
    ],
)
def test_printed_text_keeps_its_lines_or_is_refused(answer, message):
    with pytest.raises(DatasetError, match=message):
        check_answer(answer, question("<OCR_WITH_REGION>"))


@pytest.mark.parametrize("label", ["size<5", "a<b>", "<b>bold</b>", "a>b"])
def test_printed_text_may_hold_what_its_grammar_keeps(label):
    answer = f"one{QUAD}\n{label}{QUAD}"
    check_answer(answer, question("<OCR_WITH_REGION>"))
    assert [found.label for found in find_objects("quads", answer)] == ["one", label]


@pytest.mark.parametrize("tag", TEXTS)
def test_texts_are_read_as_they_are(tag):
    for answer in ("size<5", "a<b>", "two\nlines", f"cat{BOX}", ""):
        check_answer(answer, question(tag))
    with pytest.raises(DatasetError, match="must not hold </s>"):
        check_answer("cat</s>", question(tag))


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.load(resolve("florence-2-demo"))


@pytest.mark.parametrize("answer", [f"größer als 🐱{BOX}", f"a  b{BOX}", f"e\u0301{BOX}"])
def test_what_a_model_can_say_passes(tokenizer, answer):
    assert check_survival(answer, question("<OD>"), tokenizer) is None
    assert check_survival(answer, question("<CAPTION>"), tokenizer) is None


def test_what_a_model_can_not_say_is_told(tokenizer):
    assert "reads 'a<mask>'" in (check_survival("a <mask>", question("<CAPTION>"), tokenizer) or "")
    grounding = question("<CAPTION_TO_PHRASE_GROUNDING>")
    assert check_survival(f"it{BOX}", grounding, tokenizer) is None
    assert "'it' is not read back" in (check_survival(f"a cat{BOX}it{BOX}", grounding, tokenizer, frozenset({"it"})) or "")
