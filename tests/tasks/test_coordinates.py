"""Bins and pixels without the reference; equality with it is in tests/parity."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from florence2.errors import InvalidOption
from florence2.tasks.coordinates import check_image_size, dequantize, quantize


def test_the_middle_of_a_bin_is_cut_to_an_integer() -> None:
    assert dequantize([499, 999, 0, 0], (640, 480)) == [319, 479, 0, 0]
    assert dequantize([0, 500, 999, 999], (1, 1)) == [0, 0, 0, 0]
    assert dequantize([], (640, 480)) == []


def test_bins_beyond_a_32_bit_pixel_stay_there() -> None:
    assert dequantize([10**18, 1500], (5000, 1000)) == [2147483520, 1500]


def test_pixels_outside_end_at_the_border() -> None:
    assert quantize([-5, 480, 640, 1e9], (640, 480)) == [0, 999, 999, 999]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(index=st.integers(0, 999), width=st.integers(1001, 20000))
def test_a_bins_pixel_lies_in_that_bin_or_at_its_edge(index: int, width: int) -> None:
    assert 0 <= index - quantize(dequantize([index, 0], (width, 1)), (width, 1))[0] <= 1


@pytest.mark.parametrize("size", [(0, 1), (1, -1), (1,), (1, 2, 3), (1.5, 2), ("1", 2), None, 7, (None, 1)])
def test_sizes_are_two_whole_positive_numbers(size: object) -> None:
    with pytest.raises(InvalidOption, match="width, height") as caught:
        check_image_size(size)  # pyright: ignore[reportArgumentType]
    assert caught.value.field == "image_size"
