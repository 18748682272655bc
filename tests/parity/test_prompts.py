"""The sentences that the model sees, against the reference's."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from florence2.tasks import TASKS, expand_prompt
from florence2.tasks.vocabulary import STRUCTURAL
from tests.parity.florence2_processor import reference_processor

REFERENCE = reference_processor()
_tags = {need: [tag for tag, task in TASKS.items() if task.needs == need] for need in (None, "text", "region")}
_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).filter(
    lambda text: text.strip() and not any(token in text for token in (*STRUCTURAL, *TASKS))
)


def _expected(prompt: str) -> str:
    return REFERENCE._construct_prompts(prompt)[0]


def test_the_table_has_the_references_fifteen_tasks() -> None:
    assert set(TASKS) == {*REFERENCE.task_prompts_without_inputs, *REFERENCE.task_prompts_with_input}
    assert set(TASKS) == set(REFERENCE.tasks_answer_post_processing_type)


@pytest.mark.parametrize("tag", _tags[None])
def test_tags_alone(tag: str) -> None:
    assert expand_prompt(tag) == _expected(tag)


@pytest.mark.parametrize("tag", _tags["text"])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(text=_text, spaces=st.sampled_from(["", " ", "\n", "\u3000"]))
def test_tags_with_text(tag: str, text: str, spaces: str) -> None:
    expected = _expected(tag + text)
    assert expand_prompt(tag + text) == expected
    assert expand_prompt(tag, text=spaces + text) == expected
    assert expand_prompt(spaces + tag + spaces + text + spaces) == _expected(spaces + tag + spaces + text + spaces)


@pytest.mark.parametrize("text", ["a {text} of {region}", "{", "{0}", "a<and>b", "<loc_1>", "an <OD", "%s"])
def test_text_is_taken_literally(text: str) -> None:
    assert expand_prompt("<OPEN_VOCABULARY_DETECTION>" + text) == _expected("<OPEN_VOCABULARY_DETECTION>" + text)


def test_a_tag_behind_its_text_counts_as_in_the_reference() -> None:
    prompt = "a dog <CAPTION_TO_PHRASE_GROUNDING> and a cat"
    assert expand_prompt(prompt) == _expected(prompt)


@pytest.mark.parametrize("tag", _tags["region"])
@settings(max_examples=25, deadline=None, derandomize=True)
@given(bins=st.lists(st.integers(0, 999), min_size=4, max_size=4))
def test_tags_with_location_tokens(tag: str, bins: list[int]) -> None:
    region = "".join(f"<loc_{index}>" for index in bins)
    expected = _expected(tag + region)
    assert expand_prompt(tag + region) == expected
    assert expand_prompt(tag, region=region) == expected


@pytest.mark.parametrize("tag", _tags["region"])
@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data(), size=st.tuples(st.integers(1, 6000), st.integers(1, 6000)))
def test_tags_with_pixels(tag: str, data: st.DataObject, size: tuple[int, int]) -> None:
    import torch

    number = st.booleans().flatmap(lambda whole: st.integers(0, 6000) if whole else st.floats(0, 6000))
    xs, ys = (sorted(min(data.draw(number), side) for _ in range(2)) for side in size)
    region = (xs[0], ys[0], xs[1], ys[1])
    bins = REFERENCE.post_processor.quantize(torch.tensor([region], dtype=torch.float32), size)[0].tolist()
    tokens = "".join(f"<loc_{index}>" for index in bins)
    assert expand_prompt(tag, region=region, image_size=size) == _expected(tag + tokens)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(prompt=_text.filter(lambda text: not text.lstrip().startswith("<")))
def test_free_text_is_sent_as_it_is(prompt: str) -> None:
    assert expand_prompt(prompt) == _expected(prompt) == prompt
