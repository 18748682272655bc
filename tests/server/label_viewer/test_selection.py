"""Which pictures are shown: each filter, all of them together, the orders, and words that can't be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from starlette.datastructures import QueryParams

from florence2.datasets.labelled import LabelledObject, LabelledPicture, LabelledSet
from florence2.errors import InvalidRequest
from florence2.server.label_viewer.index import Index, Problem
from florence2.server.label_viewer.selection import read_filters, select


def thing(label: str, score: float | None = None, text: str = "") -> LabelledObject:
    return LabelledObject(label, (1.0, 2.0, 3.123456, 4.0), score=score, text=text)


def picture(name: str, *objects: LabelledObject, caption: str = "", split: str = "train") -> LabelledPicture:
    texts = {"<CAPTION>": caption} if caption else {}
    return LabelledPicture(name, Path("/pictures") / name, (40, 30), objects, texts, split=split)  # pyright: ignore[reportArgumentType]


PICTURES = [
    picture("b/two.jpg", thing("cat", 0.9), thing("dog", 0.3)),
    picture("a/one.jpg", thing("dog", 0.8), caption="A dog on a Straße", split="val"),
    picture("c/none.jpg"),
    picture("d/sign.jpg", thing("text", 0.5, "EXIT 12"), thing("dog", None)),
    picture("e/한글.jpg", thing("elsewhere", 0.1)),
]
PROBLEM = Problem("f/torn.jpg", "/pictures/f/torn.jpg", None, "the image is damaged")


@pytest.fixture(scope="module")
def index() -> Index:
    return Index(LabelledSet(lambda: iter(PICTURES), ["cat", "dog", "text"], len(PICTURES)), [PROBLEM])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", "btwo aone cnone dsign e한글 ftorn"),
        ("class=cat", "btwo"),
        ("class=cat&class=text", "btwo dsign"),
        ("class=unknown", ""),
        ("min_score=0.8", "btwo aone"),
        ("max_score=0.3", "btwo e한글"),
        ("class=dog&max_score=0.5", "btwo"),
        ("class=dog&min_score=0.31&max_score=0.9", "aone"),
        ("split=val", "aone"),
        ("split=train&shown=problems", ""),
        ("shown=labelled", "btwo aone cnone dsign e한글"),
        ("shown=empty", "cnone"),
        ("shown=problems", "ftorn"),
        ("text=STRASSE dog", "aone"),
        ("text=exit", "dsign"),
        ("text=한글", "e한글"),
        ("text=dog cat", ""),
        ("order=lowest", "e한글 btwo dsign aone cnone ftorn"),
        ("order=highest", "btwo aone dsign e한글 cnone ftorn"),
        ("order=lowest&class=dog", "btwo aone dsign"),
        ("order=most", "btwo dsign aone e한글 cnone ftorn"),
        ("order=name&shown=labelled", "aone btwo cnone dsign e한글"),
    ],
)
def test_filters_and_orders(index: Index, words: str, expected: str) -> None:
    chosen = select(index, read_filters(QueryParams(words)))
    assert [index.names[one].replace("/", "").removesuffix(".jpg") for one in chosen] == expected.split()


@pytest.mark.parametrize("words", ["min_score=2", "max_score=nan", "min_score=x", "shown=x", "order=--", "split=test", "min_score=-0.1"])
def test_words_that_can_not_be_are_refused_by_name(words: str) -> None:
    with pytest.raises(InvalidRequest, match=words.partition("=")[0]):
        read_filters(QueryParams(words))


def test_a_record_is_what_the_page_draws(index: Index) -> None:
    (first, torn) = index.records([0, 5])
    assert first["index"] == 0
    assert first["objects"][0] == {"label": "cat", "box": [1.0, 2.0, 3.12, 4.0], "score": 0.9, "task": ""}
    assert torn["problem"] == "the image is damaged"
    assert {one["name"]: (one["num_objects"], one["num_pictures"]) for one in index.counts} == {
        "cat": (1, 1),
        "dog": (3, 3),
        "text": (1, 1),
    }
    assert index.find("d/sign.jpg") == 3
    assert index.find("../etc/passwd") is None


def test_a_name_that_is_no_unicode_is_found_as_addresses_have_it() -> None:
    index = Index(LabelledSet(lambda: iter([picture("\udcff.jpg")]), [], 1))
    assert index.find("\ufffd.jpg") == 0


def test_an_empty_run_has_an_index() -> None:
    index = Index(LabelledSet(lambda: iter(()), [], 0))
    assert select(index, read_filters(QueryParams("order=lowest&text=x"))).tolist() == []
    assert index.counts == []


def test_the_order_is_that_of_a_plain_sort() -> None:
    rng = np.random.default_rng(5)
    pictures = [picture(f"{number}.jpg", *(thing("cat", float(rng.random())) for _ in range(rng.integers(0, 4)))) for number in range(300)]
    index = Index(LabelledSet(lambda: iter(pictures), ["cat"], len(pictures)))
    lowest = [min((found.score or 0 for found in one.objects), default=2) for one in pictures]
    expected = sorted(range(len(pictures)), key=lambda number: lowest[number])
    assert select(index, read_filters(QueryParams("order=lowest"))).tolist() == expected
