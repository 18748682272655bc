"""Groups of examples cover all rows and are padded little."""

from __future__ import annotations

from florence2.training.collation import group_bounds


def test_groups_cover_all_rows_and_pad_less_than_one_group():
    lengths = sorted([3] * 50 + [10] * 20 + [40] * 5)
    bounds = group_bounds(lengths, 4)
    assert [index for start, end in bounds for index in range(start, end)] == list(range(75))
    assert sum(lengths[end - 1] * (end - start) for start, end in bounds) == sum(lengths)
    assert group_bounds([5, 5], 4) == [(0, 2)]
