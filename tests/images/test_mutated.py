"""Damaged files of every format are pictures, or refused by an error that says so: no other error, no crash, no hour of work."""

from __future__ import annotations

import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from florence2.images import read_image
from tests.images.mutated import check, mutated, valid_files

# More by hand: python -m tests.images.mutated SECONDS
NUM_EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "400"))


@pytest.mark.parametrize("name", valid_files())
def test_the_files_that_are_changed_are_valid(name: str) -> None:
    assert sorted(read_image(valid_files()[name]).size) == [18, 24]


@settings(max_examples=NUM_EXAMPLES, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_damaged_files_are_refused_or_read(seed: int) -> None:
    check(mutated(random.Random(seed))[1])
