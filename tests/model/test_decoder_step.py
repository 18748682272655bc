"""The compiled decoder step: what PyTorch computes, and for each row the same bits whoever shares the step."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fixtures.checkpoints import write_checkpoint
from florence2.model import Florence2
from florence2.model.attention import KeyLengths
from florence2.model.bart import EncodedPrompts
from florence2.model.cache import Step, StepSize
from florence2.model.cpu import kernels
from florence2.model.cpu.panels import PanelLinear
from florence2.model.decoder_step import DecoderStep, StepEmbedding
from florence2.model.linear import Linear
from florence2.model.precision import Precision
from florence2.model.refined_head import REFINED
from florence2.model.step_check import is_sound
from florence2.weights import load_model, read_checkpoint

PRECISIONS = {"fp32": Precision(), "bf16": Precision(decoder=torch.bfloat16), "int8": Precision(is_quantized=True)}
# The largest difference of a logit from that of the plain model, whose largest logits are about 30; of int8 random weights lose the most.
FARTHEST = {"fp32": 1e-4, "bf16": 0.7, "int8": 4.0}
SOURCES = [9, 70, 33, 12]
TYPES = [torch.float32, torch.bfloat16, torch.int8]


@pytest.fixture(scope="module")
def compiled() -> kernels.Kernels:
    kernels.prepare()
    found = kernels.loaded()
    if found is None and not shutil.which("g++"):
        pytest.skip("no g++ on this machine")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {size: write_checkpoint(tmp_path_factory.mktemp(size), size=size) for size in ("tiny", "wide")}


@pytest.fixture(scope="module")
def models(compiled, folders: dict[str, Path]) -> dict[tuple[str, str], Florence2]:
    """Models by size and precision; "plain" is the reference."""
    made = {}
    for size, folder in folders.items():
        checkpoint = read_checkpoint(folder)
        made[size, "plain"] = load_model(checkpoint)
        for name, precision in PRECISIONS.items():
            made[size, name] = load_model(checkpoint, packing=precision)
            assert made[size, name].language_model.compiled_step is not None
    return made


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def prompts(model: Florence2) -> list[EncodedPrompts]:
    """The same for every precision, so that only steps differ."""
    generator = torch.Generator().manual_seed(3)
    width = model.config.text.d_model
    return [EncodedPrompts(torch.randn(1, length, width, generator=generator), (length,)) for length in SOURCES]


@torch.inference_mode()
def logits_of(model: Florence2, requests: Sequence[tuple[int, int]], steps: int, late: int = 0) -> list[list[Tensor]]:
    """Logits of each request, step by step.

    Args:
        model: takes the steps.
        requests: of each the number of its prompt and its beams.
        steps: that each request takes.
        late: steps that the last request comes after the others.
    """
    late = late if len(requests) > 1 else 0
    encoded, cache = prompts(model), model.new_cache(64)
    found: list[list[Tensor]] = [[] for _ in requests]
    for number in range(steps + late):
        for index, (prompt, beams) in enumerate(requests):
            if number == (late if index == len(requests) - 1 else 0):
                model.admit(cache, encoded[prompt], [beams])
        present = requests[: cache.num_requests]
        tokens = [
            10 * prompt + 7 * (number - (late if index == len(requests) - 1 else 0)) + beam
            for index, (prompt, beams) in enumerate(present)
            for beam in range(beams)
        ]
        logits = model.decode_step(torch.tensor(tokens), cache).float()
        first = 0
        for index, (_, beams) in enumerate(present):
            if len(found[index]) < steps:
                found[index].append(logits[first : first + beams].clone())
            first += beams
    return found


@pytest.mark.parametrize("size", ["tiny", "wide"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("requests", [[(0, 1)], [(1, 3)], [(0, 2), (1, 3), (2, 1)], [(1, 16), (2, 16), (3, 7)]], ids=str)
def test_a_step_is_what_the_plain_model_computes(models, size: str, precision: str, requests: list[tuple[int, int]]) -> None:
    ours = logits_of(models[size, precision], requests, steps=5, late=2)
    theirs = logits_of(models[size, "plain"], requests, steps=5, late=2)
    for own, plain in zip(ours, theirs, strict=True):
        for one, other in zip(own, plain, strict=True):
            assert float((one - other).abs().max()) < FARTHEST[precision]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_step_is_what_its_layers_compute_one_by_one(models, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = models["wide", precision]
    together = logits_of(model, [(0, 2), (1, 3)], steps=4)
    monkeypatch.setattr(DecoderStep, "can_take", lambda *_: False)
    one_by_one = logits_of(model, [(0, 2), (1, 3)], steps=4)
    farthest = 1e-4 if precision == "fp32" else 0.02  # a last digit more or less is another number once keys are rounded to bfloat16
    for own, other in zip(chain(*together), chain(*one_by_one), strict=True):
        torch.testing.assert_close(own, other, atol=farthest, rtol=1e-4)


@pytest.mark.parametrize("precision", PRECISIONS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    others=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), max_size=6),
    own=st.tuples(st.integers(0, 3), st.integers(1, 4)),
    late=st.integers(0, 3),
    size=st.sampled_from(["tiny", "wide"]),
)
def test_a_request_has_the_same_bits_alone_and_among_others(
    models, precision: str, size: str, others: list[tuple[int, int]], own: tuple[int, int], late: int
) -> None:
    model = models[size, precision]
    alone = logits_of(model, [own], steps=3)[0]
    among = logits_of(model, [*others, own], steps=3, late=late)[-1]
    for one, other in zip(alone, among, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_number_of_threads_changes_nothing(models, threads, precision: str) -> None:
    found = []
    for number in (1, 2, 3, 5):
        torch.set_num_threads(number)
        found.append(torch.cat(list(chain(*logits_of(models["wide", precision], [(0, 1), (1, 3), (2, 16)], steps=3)))))
    assert all(torch.equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("precision", PRECISIONS)
@torch.inference_mode()
def test_what_is_not_a_number_stays_in_its_request(models, precision: str) -> None:
    model = models["wide", precision]
    sound = logits_of(model, [(0, 2)], steps=1)[0][0]
    cache = model.new_cache(8)
    model.admit(cache, prompts(model)[1], [3])
    model.admit(cache, prompts(model)[0], [2])
    cache.begin_step().cross_kv[:, :, 0] = float("nan")
    logits = model.decode_step(torch.tensor([1, 2, 3, 0, 1]), cache)
    assert logits[:3].isnan().any(dim=1).all()
    assert torch.equal(logits[3:], sound)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize(("inputs", "outputs"), [(2, 1), (48, 96), (64, 83), (130, 16), (30, 200), (2050, 20)])
@torch.inference_mode()
def test_a_layer_multiplies_any_shape_and_any_number_of_rows(compiled, dtype: torch.dtype, inputs: int, outputs: int) -> None:
    torch.manual_seed(0)
    plain = Linear(inputs, outputs)
    layer = PanelLinear(plain.weight, plain.bias, dtype, compiled)
    hidden, residual = torch.randn(48, inputs), torch.randn(48, outputs)
    kept = PanelLinear(torch.eye(inputs), None, dtype, compiled)
    if dtype == torch.int8:  # rows have 15 bits there
        assert bool(((kept(hidden) - hidden).abs() <= 0.51 * hidden.abs().amax(-1, keepdim=True) / 16383).all())
    else:
        torch.testing.assert_close(kept(hidden), hidden, atol=1e-6, rtol=1e-6)
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.int8: 5e-2}[dtype]
    for options in ({}, {"gelu": True}, {"add_to": residual}, {"gelu": True, "add_to": residual}):
        whole = layer(hidden, **own(options, 48))
        torch.testing.assert_close(whole, plain(hidden, **own(options, 48)), atol=tolerance, rtol=tolerance)
        for rows in range(1, 48):
            assert torch.equal(layer(hidden[:rows], **own(options, rows)), whole[:rows])


def own(options: dict[str, Any], rows: int) -> dict[str, Any]:
    """The options for the first rows, with a copy of what is overwritten."""
    return {name: value[:rows].clone() if isinstance(value, Tensor) else value for name, value in options.items()}


@torch.inference_mode()
def test_a_layer_takes_the_type_and_shape_of_its_input(compiled) -> None:
    plain = Linear(32, 40).bfloat16()
    layer = PanelLinear(plain.weight, plain.bias, torch.bfloat16, compiled)
    hidden = torch.randn(3, 2, 32).bfloat16()
    assert layer(hidden).dtype == torch.bfloat16
    torch.testing.assert_close(layer(hidden).float(), plain(hidden).float(), atol=0.02, rtol=0.02)


@torch.inference_mode()
def test_gelu_is_exact_within_rounding(compiled) -> None:
    values = torch.linspace(-12, 12, 20_000).view(-1, 2)
    layer = PanelLinear(torch.eye(2), None, torch.float32, compiled)
    exact = torch.nn.functional.gelu(values.double())
    assert float((layer(values, gelu=True) - exact).abs().max()) < 1e-6


@torch.inference_mode()
def test_8_bits_are_kept_by_channel(compiled) -> None:
    weight = torch.randn(24, 64) * torch.logspace(-4, 4, 24).unsqueeze(1)
    weight[7] = 0
    layer = PanelLinear(weight, None, torch.int8, compiled)
    got = layer(torch.eye(64)).T
    steps = weight.abs().amax(dim=1, keepdim=True) / 127
    assert bool(((got - weight).abs() <= 0.51 * steps).all())
    assert layer.weight.nbytes == 32 * 64


@pytest.mark.parametrize("inputs", [2, 1022, 1024, 1026, 5000])
@pytest.mark.parametrize("sign", [1.0, -1.0])
@torch.inference_mode()
def test_the_largest_sums_of_8_bit_weights_are_right(compiled, inputs: int, sign: float) -> None:
    layer = PanelLinear(torch.full((3, inputs), 0.7), None, torch.int8, compiled)
    for rows in (1, 3, 7):
        torch.testing.assert_close(
            layer(torch.full((rows, inputs), sign * 1.3)), torch.full((rows, 3), sign * 1.3 * 0.7 * inputs), rtol=1e-5, atol=0
        )


@pytest.mark.parametrize("wrong", [torch.inf, -torch.inf, torch.nan, -torch.nan])
@pytest.mark.parametrize("place", [0, 17, 29])
@torch.inference_mode()
def test_a_row_in_8_bits_that_is_not_numbers_says_so_and_leaves_the_others(compiled, wrong: float, place: int) -> None:
    layer = PanelLinear(torch.randn(20, 30), torch.randn(20), torch.int8, compiled)
    hidden = torch.randn(4, 30)
    sound = layer(hidden)
    hidden[1, place] = wrong
    got = layer(hidden)
    assert bool(got[1].isnan().all())
    assert torch.equal(got[[0, 2, 3]], sound[[0, 2, 3]])
    assert float(layer(torch.zeros(1, 30)).sub(layer(torch.full((1, 30), 1e-38))).abs().max()) < 1e-6


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize(("vocabulary", "width"), [(83, 32), (9000, 66)])
@torch.inference_mode()
def test_the_largest_logits_are_computed_again_from_the_stored_table(compiled, stored: torch.dtype, vocabulary: int, width: int) -> None:
    """Exactly these, also where many logits of few bits are equal."""
    torch.manual_seed(0)
    table = torch.randn(vocabulary, width).to(stored)
    table[:, :: 2 if vocabulary < 100 else 3] = 0
    few_bits = torch.arange(vocabulary).div(5, rounding_mode="floor").flip(0).float()
    head = PanelLinear(torch.zeros(vocabulary, width), few_bits, torch.int8, compiled)
    # A decoder without layers: its hidden states are the normalised tokens.
    tokens = torch.randn(3, width)
    embedding = StepEmbedding(tokens, torch.zeros(1, width))
    decoder = DecoderStep(compiled, [], embedding, torch.nn.LayerNorm(width), head, 1, table, REFINED)
    lengths = KeyLengths.of((1, 1, 1), 1, torch.device("cpu"))
    own, prompts = torch.zeros(0, 2, 3, 1, 1, width), torch.zeros(0, 2, 3, 1, 1, width)
    groups = torch.tensor([(row, 1) for row in range(3)], dtype=torch.int32)
    step = Step(StepSize(3, 3, 1, 1, 1), own, prompts, lengths.lengths.long() - 1, lengths, lengths, None, None, groups)
    logits = decoder(torch.arange(3), step)
    exact = torch.nn.functional.layer_norm(tokens, (width,)) @ table.float().T
    torch.testing.assert_close(logits[:, :REFINED], exact[:, :REFINED], atol=1e-4, rtol=1e-4)
    assert torch.equal(logits[:, REFINED:], few_bits[REFINED:].expand(3, -1))


def test_routines_that_differ_from_pytorch_are_not_used(compiled, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_sound(compiled, torch.float32)
    is_sound.cache_clear()
    monkeypatch.setattr(torch.nn.functional, "gelu", torch.relu)
    try:
        assert load_model(read_checkpoint(folders["tiny"]), packing=Precision()).language_model.compiled_step is None
    finally:
        is_sound.cache_clear()
