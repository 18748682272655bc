"""Names of tasks as people write them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from florence2.errors import UnknownTask
from florence2.tasks import TASKS
from florence2.tasks.naming import task_named, with_tag


def test_names_are_safe_in_shells_and_tell_tasks_apart() -> None:
    names = [task.name for task in TASKS.values()]
    assert names[:6] == ["caption", "detailed-caption", "more-detailed-caption", "ocr", "ocr-with-region", "od"]
    assert len(set(names)) == len(TASKS)
    assert all(name.replace("-", "").isalpha() and name.islower() for name in names)


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_every_task_is_found_by_every_way_of_writing_its_name(task) -> None:
    name = task.name
    ways = (name, name.upper(), name.replace("-", "_"), task.tag, task.tag.lower(), name.replace("-", " "), f" {name} ", name.title())
    for way in ways:
        assert task_named(way) is task, way


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("ods", "od"),
        ("captions", "caption"),
        ("ocr_region", "ocr-with-region"),
        ("region2ocr", "region-to-ocr"),
        ("xyz", None),
        ("OVD", "open-vocabulary-detection"),
        ("ctpg", "caption-to-phrase-grounding"),
        ("grounding", "caption-to-phrase-grounding"),
        ("segmentation", "referring-expression-segmentation or region-to-segmentation"),
        ("captio", "caption"),
        ("detection", "open-vocabulary-detection"),
    ],
)
def test_an_unknown_task_is_told_the_nearest_and_all(name: str, nearest: str | None) -> None:
    with pytest.raises(UnknownTask) as caught:
        task_named(name)
    message = caught.value.message
    assert (f"did you mean {nearest}?" in message) == (nearest is not None)
    assert repr(name) in message
    assert all(task.name in message for task in TASKS.values())
    assert len(message) < 500


def test_a_long_unknown_name_is_cut() -> None:
    with pytest.raises(UnknownTask) as caught:
        task_named("a red car on a road " * 50)
    assert len(caught.value.message) < 500


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        *(
            (way, "<OD>")
            for way in ("OD", "od", "Od", "<OD", "OD>", "<od>", "< OD >", "(OD)", '"OD"', "OD.", " OD ", "[od]", "&lt;OD&gt;", "%3COD%3E")
        ),
        *((way, "<OD>") for way in (r"\u003cOD\u003e", "&amp;lt;OD&amp;gt;", "\uff1cOD\uff1e")),
        *((way, "<OCR_WITH_REGION>") for way in ("ocr_with_region", "ocr-with-region", "OCR WITH REGION", "ocr with region")),
        ("OD a red car", "<OD>a red car"),
        ("od a red car", "<OD>a red car"),
        ("OD: a red car", "<OD>a red car"),
        ("<od>a red car", "<OD>a red car"),
        ("OPEN_VOCABULARY_DETECTION a red car", "<OPEN_VOCABULARY_DETECTION>a red car"),
        ("open-vocabulary-detection a red car", "<OPEN_VOCABULARY_DETECTION>a red car"),
        ("<OPEN_VOCABULARY_DETECTION a red car", "<OPEN_VOCABULARY_DETECTION>a red car"),
        ("Open_Vocabulary_Detection\ta\nred car", "<OPEN_VOCABULARY_DETECTION>a\nred car"),
        ("&lt;OPEN_VOCABULARY_DETECTION&gt;a red car", "<OPEN_VOCABULARY_DETECTION>a red car"),
        ("region_to_ocr<loc_1><loc_2><loc_3><loc_4>", "<REGION_TO_OCR><loc_1><loc_2><loc_3><loc_4>"),
        ("REGION_TO_OCR 1,2,3,4", "<REGION_TO_OCR>1,2,3,4"),
        # The longest name counts.
        ("OCR_WITH_REGION please", "<OCR_WITH_REGION>please"),
        ("MORE_DETAILED_CAPTION x", "<MORE_DETAILED_CAPTION>x"),
    ],
)
def test_a_tag_in_another_writing_is_the_tag(written: str, meant: str) -> None:
    assert with_tag(written) == meant


@pytest.mark.parametrize(
    "prompt",
    [
        *("<OD>", "<OPEN_VOCABULARY_DETECTION>a dog", "<OPEN_VOCABULARY_DETECTION> OD"),
        *(
            "What is in the image?",
            "caption this image",
            "ocr the sign",
            "odd ducks",
            "ODD",
            "OCRX",
            "ocr, caption",
            "odometer",
            "<ODD>",
            "<VQA>what?",
        ),
        *("a detailed caption of the image", "Caption: a dog", "Locate OD in the image", "", "<loc_1><loc_2>"),
    ],
)
def test_what_is_a_tag_already_or_words_of_a_sentence_stays(prompt: str) -> None:
    assert with_tag(prompt) == prompt


def test_the_table_comes_without_numpy() -> None:
    script = "import sys; from florence2.tasks import TASKS; import florence2.tasks.naming; print('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "False\n"
    from florence2 import tasks

    assert all(getattr(tasks, name) is not None for name in tasks.__all__)
    with pytest.raises(AttributeError):
        _ = tasks.nothing
