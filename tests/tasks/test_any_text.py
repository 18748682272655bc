"""Whatever a client or a model writes: prompts are parsed or refused by this project's errors, and every answer is read."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from florence2.errors import InvalidRequest
from florence2.tasks import TASKS
from florence2.tasks.answer import read_answer
from florence2.tasks.prompt import Prompt, parse_prompt

NUM_EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))
BROKEN = ("<loc_1000>", "<loc_", "<OD", "<", ">", "and", "\n")
PIECES = (*TASKS, "<loc_0>", "<loc_999>", "<sep>", "<poly>", "</poly>", "<s>", "</s>", "<pad>", *BROKEN)
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=6), max_size=12).map("".join)
NUMBERS = st.floats() | st.integers(-(10**30), 10**30) | st.booleans() | st.none() | st.text(max_size=3)
REGIONS = st.none() | TEXTS | st.lists(NUMBERS, max_size=6) | st.lists(st.floats(0, 100), min_size=4, max_size=4)
SIZES = st.tuples(st.integers(1, 5000), st.integers(1, 5000))


@settings(max_examples=NUM_EXAMPLES, deadline=None, derandomize=True)
@given(prompt=TEXTS, text=st.none() | TEXTS, region=REGIONS, size=SIZES, allow=st.booleans())
def test_prompts_are_parsed_or_refused(prompt: str, text: str | None, region: Any, size: tuple[int, int], allow: bool) -> None:
    try:
        bound = parse_prompt(prompt, text=text, region=region, allow_unknown_tag=allow).bind(size)
    except InvalidRequest:
        return
    assert bound.region is None


@pytest.mark.parametrize("prompt", ["a" + "." * 8190 + "a", "<OCR WITH " + " " * 8000 + "x", "a" + "\u0301\u0316" * 4090, "\ufdfa" * 8192])
def test_long_prompts_take_no_time(prompt: str) -> None:
    began = time.process_time()
    with contextlib.suppress(InvalidRequest):
        parse_prompt(prompt)
    assert time.process_time() - began < 0.5  # they took two seconds


@pytest.mark.parametrize("tag", [*TASKS, None])
@settings(max_examples=NUM_EXAMPLES // 5, deadline=None, derandomize=True)
@given(answer=TEXTS, size=SIZES)
def test_every_answer_is_read(tag: str | None, answer: str, size: tuple[int, int]) -> None:
    read = read_answer(_prompt(tag), answer, size)
    numbers = [number for box in read.boxes or () for number in box]
    assert all(math.isfinite(number) and -1 <= number <= max(size) for number in numbers)
    assert len(read.objects) == len(read.labels or read.objects)
    json.dumps(read.to_dict())


def _prompt(tag: str | None) -> Prompt:
    """A prompt of the task."""
    needs = None if tag is None else TASKS[tag].needs
    return parse_prompt(tag or "what is it?", text="a" if needs == "text" else None, region=[0, 0, 1, 1] if needs == "region" else None)
