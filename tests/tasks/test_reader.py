"""Objects are found while their answer is generated: those of the whole answer, none taken back, each as soon as it is certain."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from florence2.tasks import TASKS, Tokenizer, interpret
from florence2.tasks.answer import found_objects
from florence2.tasks.parsing import Found, ObjectReader, find_objects
from florence2.tasks.prompt import Prompt
from florence2.tasks.reader import AnswerReader
from florence2.tasks.sentinels import SentinelFilter
from florence2.tasks.table import Grammar
from tests.tasks.test_parsing import HOSTILE
from tests.tasks.tiny_tokenizer import write_tokenizer_json

BANNED = frozenset({"it"})
GRAMMARS: tuple[Grammar, ...] = get_args(Grammar)
SIZE = (640, 480)
ONE, FOUR, EIGHT = "<loc_7>", "<loc_1><loc_2><loc_3><loc_4>", "".join(f"<loc_{index}>" for index in range(8))

_WORDS = ["cat", " a dog\n", "\n", "it", " ", "é", "2 > 1"]
_BROKEN = ["<", ">", "<loc_", "7", "12>", "<po", "ly>", "s>", "/s>", "<p", "<loc_٣>"]
_TEXTS = st.lists(
    st.sampled_from([ONE, ONE, FOUR, FOUR, EIGHT, "<sep>", "<poly>", "</poly>", "<s>", "</s>", "<pad>", *_WORDS, *_BROKEN]), max_size=14
).map("".join)


def read(grammar: Grammar, pieces: Sequence[str]) -> list[list[Found]]:
    """The objects that each piece completes; the last entry is of the end."""
    clean, reader = SentinelFilter(), ObjectReader(grammar, BANNED)
    found = [reader.add(piece, clean.add(piece)) for piece in pieces]
    return [*found, reader.add("", clean.add("", is_last=True), is_last=True)]


def cut(text: str, cuts: Sequence[int]) -> list[str]:
    places = [0, *sorted(place % (len(text) + 1) for place in cuts), len(text)]
    return [text[start:end] for start, end in pairwise(places)]


@pytest.mark.parametrize("grammar", GRAMMARS)
@settings(max_examples=300, deadline=None)
@given(text=_TEXTS, cuts=st.lists(st.integers(0, 300), max_size=12))
@example(text="cat<poly><loc_1><loc_2></poly><sep><loc_3><poly><loc_4></poly>", cuts=list(range(70)))
def test_however_it_is_cut_the_objects_are_those_of_the_whole(grammar: Grammar, text: str, cuts: list[int]) -> None:
    pieces = cut(text, cuts)
    found = [item for part in read(grammar, pieces) for item in part]
    before: list[str] = []  # the pieces before the one that shows that the answer has polygons
    for piece in pieces:
        if "<poly>" in "".join([*before, piece]):
            break
        before.append(piece)
    early = [item for part in read(grammar, before)[:-1] for item in part]
    if grammar == "boxes_or_polygons" and len(before) < len(pieces) and early:
        assert found == early  # the one exception: they can't be taken back, and nothing follows
    else:
        assert found == find_objects(grammar, text, BANNED)


@pytest.mark.parametrize("grammar", [grammar for grammar in GRAMMARS if grammar != "boxes_or_polygons"])
@settings(max_examples=60, deadline=None)
@given(text=_TEXTS, after=_TEXTS)
def test_what_is_found_stands_whatever_follows(grammar: Grammar, text: str, after: str) -> None:
    found = [item for part in read(grammar, [text])[:-1] for item in part]
    assert find_objects(grammar, text + after, BANNED)[: len(found)] == found


@pytest.mark.parametrize(
    ("grammar", "text", "ends"),
    [
        ("labelled_boxes", f"<s>cat{FOUR}|{FOUR}|dog{FOUR}|</s>", 3),
        ("labelled_boxes", f"cat<loc_1><loc_2><loc_3><loc_4>|<loc_5>a{FOUR}|", 2),
        ("bare_boxes", f"{FOUR}|{FOUR}|", 2),
        ("phrase_boxes", f"it{FOUR}{FOUR}a cat{FOUR}|", 1),
        ("boxes_or_polygons", f"cat{FOUR}|{FOUR}|", 2),
        ("quads", f"</s><s>STOP{EIGHT}|\nGO{EIGHT}|", 2),
        ("quads", f"{ONE}{EIGHT}|{EIGHT}{ONE}|", 2),
        ("polygons", f"<poly>{FOUR}</poly>|<poly>{ONE}<sep>{FOUR}</poly>|", 2),
        ("polygons", "<poly><loc_1></poly><sep>|", 1),
        ("polygons", f"{FOUR}{FOUR}<sep>{FOUR}a|", 1),
        ("polygons", f"{FOUR}{FOUR}<poly>{FOUR}<lx|{FOUR}x|", 2),
        ("boxes_or_polygons", f"cat<poly>{FOUR}</poly>|dog<poly>{FOUR}</poly>|", 2),
    ],
)
def test_an_object_comes_with_the_character_that_completes_it(grammar: Grammar, text: str, ends: int) -> None:
    """Bars stand where an object has to come, and its last character is just before."""
    plain = text.replace("|", "")
    expected = [len(text[:place].replace("|", "")) - 1 for place, character in enumerate(text) if character == "|"]
    found = read(grammar, list(plain))
    assert [place for place, part in enumerate(found) for _ in part] == expected
    assert len(expected) == ends


def test_polygons_without_poly_come_at_the_end() -> None:
    assert [len(part) for part in read("polygons", [FOUR, FOUR, "</s>"])] == [0, 0, 0, 1]


def test_boxes_that_came_before_polygons_are_all_that_comes() -> None:
    pieces = [f"cat{FOUR}", f"dog<poly>{FOUR}</poly>", f"car{FOUR}"]
    assert [[item.label for item in part] for part in read("boxes_or_polygons", pieces)] == [["cat"], [], [], []]
    assert [item.label for item in find_objects("boxes_or_polygons", "".join(pieces))] == ["cat", "dog", "car"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.load(write_tokenizer_json(Path(tmp_path_factory.mktemp("tiny"))))


@pytest.mark.parametrize("tag", TASKS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_tokens_give_the_text_the_objects_and_the_scores_of_the_result(tokenizer: Tokenizer, tag: str, data: st.DataObject) -> None:
    ids = tokenizer.encode(data.draw(_TEXTS))
    ids += data.draw(st.lists(st.integers(0, tokenizer.vocab_size + 3), max_size=5))
    ids = data.draw(st.permutations(ids)) if data.draw(st.booleans()) else ids
    random = np.random.default_rng(data.draw(st.integers(0, 9)))
    own = (-random.exponential(size=len(ids))).tolist()
    rows = [random.dirichlet(np.ones(1000)).astype(np.float32) if index in tokenizer.location_ids else None for index in ids]
    prompt = Prompt(tag, tag, TASKS[tag].template, TASKS[tag].kind)
    known = {"tokenizer": tokenizer, "image_size": SIZE, "finish_reason": "stop", "scores": True, "banned_phrases": BANNED}
    result = interpret(prompt, token_ids=ids, log_probabilities=own, location_probabilities=rows, **known)
    assert sum(result.log_probabilities or ()) == pytest.approx(result.log_probability)

    reader = AnswerReader(prompt, tokenizer, BANNED, scores=True)
    places = [0, *sorted(data.draw(st.lists(st.integers(0, len(ids)), max_size=9))), len(ids)]
    text, objects, raws = "", [], [""]
    for start, end in pairwise(places):
        is_last = end == len(ids)
        part = reader.add(ids[start:end], own[start:end], rows[start:end], is_last=is_last)
        text += part.text
        objects += found_objects(prompt, part, SIZE)
        assert reader.raw.startswith(raws[-1])
        raws.append(reader.raw)
        if is_last:
            break
    assert (text, reader.raw) == (result.text, result.raw)
    given = {"token_ids": ids, "log_probabilities": own, "location_probabilities": rows, **known}
    assert interpret(prompt, reader=reader, **given) == result  # without reading again, but where boxes came before polygons
    if tag != "<OPEN_VOCABULARY_DETECTION>" or "<poly>" not in result.raw:
        assert [found for found, _ in objects] == list(result.objects)
        if len(result.objects) == len(result.bins):
            assert [bins for _, bins in objects] == result.bins


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_time_grows_with_length_alone(name: str) -> None:
    text = HOSTILE[name][:30_000]
    pieces = [text[start : start + 5] for start in range(0, len(text), 5)]
    began = time.process_time()
    for grammar in GRAMMARS:
        read(grammar, pieces)
    assert time.process_time() - began < 8, "a linear reader takes half a second here, a quadratic one minutes"
