"""From --task, --prompt, --text and --region to questions."""

from __future__ import annotations

import pytest

from florence2.cli.infer.questions import Question, Region, hints, read_questions
from florence2.errors import InvalidPrompt, InvalidRegion, InvalidRequest, UnknownTask

DETECTION, GROUNDING, READ = "<OPEN_VOCABULARY_DETECTION>", "<CAPTION_TO_PHRASE_GROUNDING>", "<REGION_TO_OCR>"


def read(*asked: tuple[str, str], texts: tuple[str, ...] = (), regions: tuple[str, ...] = (), unknown: bool = False) -> list[Question]:
    return read_questions(asked, texts, regions, allow_unknown_tag=unknown)


def test_tasks_and_prompts_keep_their_order() -> None:
    asked = read(("task", "od"), ("prompt", "what is it?"), ("task", "OCR_WITH_REGION"), ("prompt", "caption"))
    assert asked == [Question("<OD>"), Question("what is it?"), Question("<OCR_WITH_REGION>"), Question("<CAPTION>")]


def test_one_option_may_name_several_tasks() -> None:
    assert read(("task", "od,caption, ocr")) == [Question("<OD>"), Question("<CAPTION>"), Question("<OCR>")]


def test_several_tags_in_one_prompt_are_as_many_questions_and_a_sentence_with_a_comma_is_one() -> None:
    assert read(("prompt", "od, CAPTION")) == read(("prompt", "<OD>,<CAPTION>")) == [Question("<OD>"), Question("<CAPTION>")]
    assert read(("prompt", "caption, please")) == [Question("caption, please")]


def test_texts_and_regions_go_to_the_tasks_that_need_them() -> None:
    asked = read(
        ("task", "od"), ("task", "open-vocabulary-detection"), ("task", "region-to-ocr"), texts=("car", "dog"), regions=("1,2,3,4",)
    )
    assert asked == [Question("<OD>"), Question(DETECTION, "car"), Question(DETECTION, "dog"), Question(READ, region=(1, 2, 3, 4))]


def test_a_text_behind_the_tag_is_the_tasks_own() -> None:
    assert read(("prompt", f"{DETECTION}a cat"), ("task", "caption-to-phrase-grounding"), texts=("a dog",)) == [
        Question(DETECTION, "a cat"),
        Question(GROUNDING, "a dog"),
    ]
    assert read(("prompt", "OPEN_VOCABULARY_DETECTION a cat")) == [Question(DETECTION, "a cat")]


@pytest.mark.parametrize(
    ("written", "region"),
    [
        *((way, (1.0, 2.0, 30.5, 4.0)) for way in ("1,2,30.5,4", "1, 2, 30.5, 4", "1 2 30.5 4", " 1;2;30.5;4 ")),
        ("<loc_1><loc_2><loc_3><loc_4>", "<loc_1><loc_2><loc_3><loc_4>"),
    ],
)
def test_regions_as_people_write_them(written: str, region: Region) -> None:
    assert read(("task", "region-to-ocr"), regions=(written,)) == [Question(READ, region=region)]
    assert read(("prompt", READ + written)) == [Question(READ, region=region)]


@pytest.mark.parametrize("written", ["1,2,3", "1,2,3,4,5", "a,b,c,d", "1x2x3x4"])
def test_what_is_no_region_is_told_by_its_option(written: str) -> None:
    with pytest.raises(InvalidRegion, match="--region takes four numbers x1,y1,x2,y2"):
        read(("task", "region-to-ocr"), regions=(written,))


@pytest.mark.parametrize(
    ("asked", "given", "kind", "said"),
    [
        ([], {}, InvalidPrompt, "--task"),
        ([("task", "ods")], {}, UnknownTask, "did you mean od?"),
        ([("task", "od,")], {}, UnknownTask, "unknown task ''"),
        ([("prompt", "<ODD>")], {}, UnknownTask, "did you mean <OD>?"),
        (
            [("task", "open-vocabulary-detection")],
            {},
            InvalidPrompt,
            '--task open-vocabulary-detection needs a text: add --text "a red car"',
        ),
        ([("prompt", DETECTION)], {}, InvalidPrompt, f'{DETECTION} needs a text: add --text "a red car"'),
        ([("task", "region-to-ocr")], {}, InvalidPrompt, "--task region-to-ocr needs a region: add --region x1,y1,x2,y2"),
        ([("task", "od")], {"texts": ("dog",)}, InvalidPrompt, "--text goes with a task that needs one (caption-to-phrase-grounding"),
        ([("task", "od"), ("task", "caption")], {"regions": ("1,2,3,4",)}, InvalidPrompt, "--region goes with"),
        ([("task", "region-to-ocr")], {"texts": ("a",), "regions": ("1,2,3,4",)}, InvalidPrompt, "--text goes with"),
        ([("prompt", "what is it?")], {"texts": ("dog",)}, InvalidPrompt, "--text goes with"),
        ([("prompt", f"{DETECTION}cat")], {"texts": ("dog",)}, InvalidPrompt, "--text goes with"),
        ([("prompt", "OD a red car")], {}, InvalidPrompt, "--task open-vocabulary-detection --text 'a red car'"),
        ([("prompt", "<OD><CAPTION>")], {}, InvalidPrompt, "--task or --prompt"),
        ([("prompt", "what <s>")], {}, InvalidPrompt, "--prompt must not hold <s>"),
        ([("task", "open-vocabulary-detection")], {"texts": ("<s>",)}, InvalidPrompt, "--text must not hold <s>"),
        ([("task", "region-to-ocr")], {"regions": ("5,5,1,1",)}, InvalidRegion, "x1"),
        ([("task", "region-to-ocr")], {"regions": ("nan,0,1,1",)}, InvalidRegion, "x1"),
    ],
)
def test_mistakes_name_the_option_to_change(asked, given, kind: type[InvalidRequest], said: str) -> None:
    with pytest.raises(kind) as caught:
        read(*asked, **given)
    assert said in caught.value.message
    assert "text=" not in caught.value.message
    assert "leave text out" not in caught.value.message
    assert len(caught.value.message) < 500


def test_an_unknown_tag_on_request_is_free_text_as_it_is() -> None:
    assert read(("prompt", "OD"), ("prompt", "<VQA>what?"), unknown=True) == [Question("OD"), Question("<VQA>what?")]
    assert read(("prompt", "<OD>"), unknown=True) == [Question("<OD>")]


def test_classes_that_are_parted_by_commas_are_told_how_to_be_asked_for() -> None:
    asked = read(("task", "open-vocabulary-detection,caption-to-phrase-grounding"), texts=("car, red dog",))
    assert hints(asked) == [
        '--text "car, red dog" is one phrase to the model; several classes are --text "car<and>red dog", or a --text for each'
    ]
    assert hints(read(("task", "open-vocabulary-detection"), texts=("car", "car<and>dog"))) == []


def test_whole_numbers_are_told_as_they_were_written() -> None:
    with pytest.raises(InvalidRegion, match=r"got \(5, 5, 1, 1.5\)"):
        read(("task", "region-to-ocr"), regions=("5,5,1,1.5",))
    assert str(read(("task", "region-to-ocr"), regions=("0,1,2,3",))[0].region) == "(0, 1, 2, 3)"


def test_titles_tell_questions_apart() -> None:
    asked = read(("task", "open-vocabulary-detection,region-to-ocr,od"), texts=("a car",), regions=("1,2,3.5,4",))
    assert [question.title for question in asked] == [f"{DETECTION} a car", f"{READ} 1,2,3.5,4", "<OD>"]
