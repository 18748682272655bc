"""The cache on its own: rows and requests enter, move and leave."""

from __future__ import annotations

import torch

from florence2.model import DecoderCache
from florence2.model.cache import CAPACITY_STEP

HEADS, WIDTH = 2, 4


def cross(num_requests: int, source: int, value: float = 0.0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    keys = torch.full((num_requests, HEADS, source, WIDTH), value)
    return [(keys, keys + 1), (keys + 2, keys + 3)]


def step(cache: DecoderCache, value: float) -> tuple[torch.Tensor, torch.Tensor]:
    cache.begin_step()
    keys = values = torch.empty(0)
    new = torch.full((cache.num_rows, HEADS, 1, WIDTH), value) + torch.arange(cache.num_rows).view(-1, 1, 1, 1)
    for layer in cache.layers:
        keys, values = cache.extend(layer, new, new)
    cache.end_step()
    return keys, values


def test_rows_of_different_age_see_only_their_own_positions():
    cache = DecoderCache()
    cache.append(cross(1, 3), [3], [2])
    step(cache, 100.0)
    cache.append(cross(1, 3), [3], [1])
    cache.begin_step()
    assert cache.self_mask is not None
    assert cache.self_mask[:, 0, 0].tolist() == [[True, True], [True, True], [True, False]]


def test_sources_of_different_length_are_masked_and_shrink_again():
    cache = DecoderCache()
    cache.append(cross(1, 3), [3], [1])
    cache.append(cross(1, 5), [5], [1])
    cache.begin_step()
    assert cache.layers[0].cross_keys.shape[2] == 5
    assert cache.cross_mask is not None
    assert cache.cross_mask[:, 0, 0].sum(dim=1).tolist() == [3, 5]
    cache.keep([0])
    cache.begin_step()
    assert cache.layers[0].cross_keys.shape[2] == 3
    assert cache.cross_mask is None


def test_rows_swap_histories():
    cache = DecoderCache()
    cache.append(cross(1, 3), [3], [3])
    step(cache, 100.0)
    cache.reorder([1, 0, 0])
    keys, _ = step(cache, 200.0)
    assert keys[:, 0, 0, 0].tolist() == [101.0, 100.0, 100.0]
    assert keys[:, 0, 1, 0].tolist() == [200.0, 201.0, 202.0]


def test_grouping_rows_is_undone_exactly_whatever_the_beams():
    for num_beams in ([2, 2], [1, 3, 2]):
        cache = DecoderCache()
        cache.append(cross(len(num_beams), 3), [3] * len(num_beams), num_beams)
        cache.begin_step()
        hidden = torch.randn(cache.num_rows, 1, 8)
        grouped = cache.group_rows(hidden)
        assert grouped.shape == (len(num_beams), max(num_beams), 8)
        torch.testing.assert_close(cache.ungroup_rows(grouped), hidden, rtol=0, atol=0)


def test_keeping_nothing_empties_it_and_it_can_be_used_again():
    cache = DecoderCache()
    cache.append(cross(2, 3), [3, 3], [1, 1])
    step(cache, 1.0)
    cache.keep([])
    assert (cache.num_rows, cache.num_requests, cache.layers) == (0, 0, [])
    cache.append(cross(1, 2), [2], [1])
    keys, _ = step(cache, 7.0)
    assert keys[0, 0, 0, 0] == 7.0


def test_it_grows_past_its_first_room_and_loses_nothing():
    cache = DecoderCache()
    cache.append(cross(1, 3), [3], [1])
    keys = values = torch.empty(0)
    for position in range(CAPACITY_STEP + 3):
        keys, values = step(cache, float(position))
    assert keys[0, 0, :, 0].tolist() == [float(position) for position in range(CAPACITY_STEP + 3)]
    torch.testing.assert_close(keys, values)


def test_beams_of_a_request_share_its_cross_attention_tensors():
    cache = DecoderCache()
    cache.append(cross(1, 600), [600], [3])
    assert cache.layers[0].cross_keys.shape[0] == 1
