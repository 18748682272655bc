"""The cache on its own: rows and requests enter, move and leave."""

from __future__ import annotations

import pytest
import torch

from florence2.model import DecoderCache, TextConfig
from florence2.model.cache import QueryPermutation, Step, StepSize, StepTensors

HEADS, WIDTH, POSITIONS, LAYERS = 2, 4, 80, 2
CONFIG = TextConfig(
    d_model=HEADS * WIDTH,
    decoder_layers=LAYERS,
    decoder_attention_heads=HEADS,
    encoder_attention_heads=HEADS,
    max_position_embeddings=POSITIONS,
)


@pytest.fixture
def cache() -> DecoderCache:
    return DecoderCache(CONFIG, max_rows=8)


def append(cache: DecoderCache, source_lengths: list[int], num_beams: list[int], value: float = 0.0) -> None:
    """Requests whose prompts' keys count up from ``value``, one each."""
    shape = (len(num_beams), HEADS, max(source_lengths), WIDTH)
    keys = torch.zeros(shape) + value + torch.arange(len(num_beams)).view(-1, 1, 1, 1)
    cache.append([(keys, keys + 0.25), (keys + 0.5, keys + 0.75)], source_lengths, num_beams)


def sized(cache: DecoderCache, size: StepSize) -> Step:
    """The next step in a size of its own."""
    positions, lengths, sources, order = cache.numbers(size)
    permutation = QueryPermutation(*map(torch.tensor, order)) if order else None
    return cache.step_of(size, StepTensors(torch.tensor(positions), torch.tensor(lengths), torch.tensor(sources), permutation))


def step(cache: DecoderCache, value: float, size: StepSize | None = None) -> Step:
    """A step in which row ``i`` stores ``value + i``."""
    made = cache.begin_step() if size is None else sized(cache, size)
    new = torch.full((made.size.rows, HEADS, 1, WIDTH), value) + torch.arange(made.size.rows).view(-1, 1, 1, 1)
    for layer in range(LAYERS):
        made.extend(layer, new, -new)
    cache.end_step()
    return made


def history(made: Step, row: int, layer: int = 0) -> list[float]:
    return made.self_kv[layer, 0, row, :, 0, 0].tolist()


def test_rows_of_different_age_see_only_their_own_positions(cache):
    append(cache, [3], [2])
    step(cache, 100.0)
    append(cache, [3], [1])
    made = cache.begin_step()
    assert made.key_lengths.mask is not None
    assert made.key_lengths.mask[:, 0, 0].tolist() == [[True, True], [True, True], [True, False]]


def test_sources_of_different_length_are_masked_and_shrink_again(cache):
    append(cache, [3], [1])
    append(cache, [5], [1])
    made = cache.begin_step()
    assert made.cross(0)[0].shape[2] == 5
    assert made.cross_key_lengths.mask is not None
    assert made.cross_key_lengths.mask[:, 0, 0].sum(dim=1).tolist() == [3, 5]
    cache.keep([0])
    made = cache.begin_step()
    assert made.cross(0)[0].shape[2] == 3
    assert made.cross_key_lengths.mask is None


def test_rows_swap_histories(cache):
    append(cache, [3], [3])
    step(cache, 100.0)
    cache.reorder([1, 0, 0])
    made = step(cache, 200.0)
    assert [history(made, row, layer=1) for row in range(3)] == [[101.0, 200.0], [100.0, 201.0], [100.0, 202.0]]


@pytest.mark.parametrize("num_beams", [[2, 2], [1, 3, 2]])
def test_grouping_rows_is_undone_exactly_whatever_the_beams(cache, num_beams):
    append(cache, [3] * len(num_beams), num_beams)
    made = cache.begin_step()
    hidden = torch.randn(cache.num_rows, 1, 8)
    grouped = made.group_rows(hidden)
    assert grouped.shape == (len(num_beams), max(num_beams), 8)
    torch.testing.assert_close(made.ungroup_rows(grouped), hidden, rtol=0, atol=0)


def test_whoever_leaves_the_others_keep_their_histories_and_their_prompts(cache):
    append(cache, [3, 3, 3], [2, 1, 3], value=10.0)
    step(cache, 100.0)
    append(cache, [2], [1], value=50.0)
    step(cache, 200.0)
    cache.keep([1, 2, 3])
    made = step(cache, 300.0)
    assert cache.num_beams == [1, 3, 1]
    assert [history(made, row) for row in range(5)] == [
        [102.0, 202.0, 300.0],
        [103.0, 203.0, 301.0],
        [104.0, 204.0, 302.0],
        [105.0, 205.0, 303.0],
        [206.0, 304.0, 0.0],
    ]
    # Each row's query stands with the prompt of its own request, wherever that has been moved to.
    prompts = made.cross(0)[0][:, :1, :1, :1].expand(-1, made.size.beams, -1, -1).reshape(made.size.requests, made.size.beams, 1)
    assert made.ungroup_rows(prompts).flatten().tolist() == [11.0, 12.0, 12.0, 12.0, 50.0]


def test_keeping_nothing_empties_it_and_it_can_be_used_again(cache):
    append(cache, [3, 3], [1, 1])
    step(cache, 1.0)
    cache.keep([])
    assert (cache.num_rows, cache.num_requests) == (0, 0)
    append(cache, [2], [1])
    assert history(step(cache, 7.0), 0) == [7.0]


@pytest.mark.parametrize("leave", [lambda cache: cache.keep([]), lambda cache: cache.clear()])
def test_nan_that_a_request_leaves_behind_does_not_reach_those_that_come(cache, leave):
    append(cache, [3, 3], [1, 1])
    step(cache, 1.0)
    cache.keep([0, 1])
    append(cache, [6], [1], value=float("nan"))
    step(cache, float("nan"))
    step(cache, float("nan"))
    leave(cache)
    append(cache, [2] * 3, [1] * 3)
    made = step(cache, 5.0)
    wider = sized(cache, StepSize(rows=4, requests=4, beams=1, length=8, source=8))
    assert not made.self_kv[:, :, : cache.num_rows].isnan().any()
    assert not wider.cross_kv[:, :, : cache.num_requests].isnan().any()


def test_it_takes_its_memory_once_and_says_how_much():
    cache = DecoderCache(CONFIG, max_rows=3, dtype=torch.bfloat16)
    assert cache.num_bytes == 2 * LAYERS * 2 * 3 * HEADS * POSITIONS * WIDTH * 2
    addresses = {cache.begin_step().self_kv.data_ptr() for _ in range(3) if append(cache, [4], [1]) or True}
    for _ in range(POSITIONS):
        addresses.add(step(cache, 1.0).self_kv.data_ptr())
    assert len(addresses) == 1
    with pytest.raises(ValueError, match="room for 3 rows; 3 are taken and 2 more"):
        append(cache, [4], [2])


def test_beams_of_a_request_share_its_cross_attention_tensors(cache):
    append(cache, [60], [3])
    assert cache.begin_step().cross(0)[0].shape[0] == 1


def test_a_larger_step_holds_the_same_in_the_same_places(cache):
    append(cache, [3, 4], [2, 1], value=10.0)
    step(cache, 100.0)
    append(cache, [2], [2], value=20.0)
    size = StepSize(rows=8, requests=4, beams=3, length=16, source=32)
    made = step(cache, 200.0, size)
    assert made.positions.tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
    assert made.key_lengths.mask is not None
    assert made.cross_key_lengths.mask is not None
    assert made.key_lengths.mask[:, 0, 0].sum(dim=1).tolist() == [2, 2, 2, 1, 1, 1, 1, 1]
    assert made.cross_key_lengths.mask[:, 0, 0].sum(dim=1).tolist() == [3, 4, 2, 1]
    assert [history(made, row)[:2] for row in range(5)] == [[100.0, 200.0], [101.0, 201.0], [102.0, 202.0], [203.0, 0.0], [204.0, 0.0]]
    hidden = torch.randn(8, 1, 8)
    torch.testing.assert_close(made.ungroup_rows(made.group_rows(hidden))[:5], hidden[:5], rtol=0, atol=0)
