"""The words of a load test become numbers and questions, and wrong ones are refused with what was expected."""

from __future__ import annotations

import pytest

from florence2.errors import InvalidOption, InvalidRequest, UnknownTask
from florence2.load_testing.options import Load, Question, parse_duration, parse_header, parse_loads, parse_questions, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"), [("60s", 60), ("500ms", 0.5), ("1.5m", 90), ("2min", 120), ("1h", 3600), ("7", 7), (" .25 s ", 0.25)]
)
def test_times(text: str, seconds: float) -> None:
    assert parse_duration(text, "duration") == seconds


@pytest.mark.parametrize("text", ["", "0s", "-1s", "fast", "1d", "nan", "1e9s", "s"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(InvalidOption, match=r"--warm-time must be a time above 0.*got") as raised:
        parse_duration(text, "warm_time")
    assert raised.value.field == "warm_time"


def test_loads() -> None:
    assert parse_loads("1,2.5, 16", None) == (Load("rate", 1), Load("rate", 2.5), Load("rate", 16))
    assert parse_loads(None, "4") == (Load("concurrency", 4),)
    assert [str(load) for load in (Load("rate", 2.5), Load("concurrency", 4))] == ["2.5 requests/s", "4 at once"]


@pytest.mark.parametrize(
    ("rate", "concurrency", "told"),
    [
        (None, None, "--rate 20"),
        ("1", "1", "leave one of them out"),
        ("0", None, "--rate must be"),
        ("1,,2", None, "--rate must be"),
        ("nan", None, "--rate must be"),
        ("inf", None, "--rate must be"),
        ("x", None, "got 'x'"),
        (None, "1.5", "--concurrency must be whole"),
        (None, "0", "--concurrency must be whole"),
    ],
)
def test_what_is_no_load(rate: str | None, concurrency: str | None, told: str) -> None:
    with pytest.raises(InvalidOption, match=told):
        parse_loads(rate, concurrency)


def test_sizes_and_headers() -> None:
    assert parse_size("640x480") == (640, 480)
    assert parse_header("X-Request-Timeout: 5") == ("x-request-timeout", "5")
    assert parse_header("a:b:c") == ("a", "b:c")
    for size in ("640", "15x100", "99999x10", "axb"):
        with pytest.raises(InvalidOption, match="--size must be"):
            parse_size(size)
    for header in ("secret", "a b:secret", ":secret", "a:secret\nx"):
        with pytest.raises(InvalidOption, match="--header must be") as raised:
            parse_header(header)
        assert "secret" not in str(raised.value)


def test_mixes() -> None:
    assert parse_questions("<CAPTION>=4, od=2 ,OCR_with_region=.5", (), ()) == (
        Question("<CAPTION>", ("<CAPTION>",), 4),
        Question("<OD>", ("<OD>",), 2),
        Question("<OCR_WITH_REGION>", ("<OCR_WITH_REGION>",), 0.5),
    )
    inline = "<OPEN_VOCABULARY_DETECTION>a car, a dog=2,<REGION_TO_OCR><loc_1><loc_2><loc_300><loc_400>=1"
    assert [(one.name, one.prompts[0]) for one in parse_questions(inline, (), ())] == [
        ("<OPEN_VOCABULARY_DETECTION>", "<OPEN_VOCABULARY_DETECTION>a car, a dog"),
        ("<REGION_TO_OCR>", "<REGION_TO_OCR><loc_1><loc_2><loc_300><loc_400>"),
    ]
    with_texts = parse_questions("<CAPTION_TO_PHRASE_GROUNDING>=1,<OD>=1", (), ("a cat", "a dog"))
    assert with_texts[0].prompts == ("<CAPTION_TO_PHRASE_GROUNDING>a cat", "<CAPTION_TO_PHRASE_GROUNDING>a dog")


def test_prompts_stand_alone_or_beside_a_mix() -> None:
    assert parse_questions(None, ["Describe the picture."], ()) == (Question("Describe the picture.", ("Describe the picture.",)),)
    assert [one.name for one in parse_questions("<OD>=3", ["x" * 99], ())] == ["<OD>", "x" * 39 + "…"]
    assert [one.name for one in parse_questions(None, (), ())] == ["<CAPTION>", "<OD>", "<OCR>"]


@pytest.mark.parametrize(
    ("mix", "texts", "told"),
    [
        ("", (), "--mix must be tasks with weights"),
        ("<OD>", (), "--mix must be tasks with weights"),
        ("<OD>=1,<OCR>", (), "--mix must be tasks with weights"),
        ("<OD>=0", (), "--mix must have weights above 0"),
        ("<OD>=1.2.3", (), "--mix must have weights above 0"),
        ("<OPEN_VOCABULARY_DETECTION>=1", (), "needs a text: give --text"),
        ("<REGION_TO_OCR>=1", (), "needs a region: write it behind the tag"),
        ("<OD>=1", ("a cat",), "--text is for tasks that need one"),
        ("<OD>a cat=1", (), "takes no text"),
    ],
)
def test_what_is_no_mix(mix: str, texts: tuple[str, ...], told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        parse_questions(mix, (), texts)


def test_a_tag_that_is_misspelt_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(UnknownTask, match="<CAPTION>"):
        parse_questions("<CAPTON>=1", (), ())
