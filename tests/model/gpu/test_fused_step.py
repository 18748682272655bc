"""Fused decoder steps give what PyTorch's give, whoever shares them: on a GPU where there is one, else in Triton's interpreter."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fixtures.checkpoints import write_checkpoint
from florence2.engine.cuda_graphs import GraphedModel
from florence2.engine.next_tokens import RankedLogits, best_by_pytorch, best_tokens, rank
from florence2.model import DecoderCache, Florence2, TextConfig
from florence2.model.adapters import Routing
from florence2.model.adapting import adapt_layers
from florence2.model.bart import EncodedPrompts
from florence2.model.gpu import attaching
from florence2.model.gpu.attaching import attach_fused_step
from florence2.model.gpu.decoder_step import MOST_ROWS, FusedStep
from florence2.weights import read_checkpoint
from tests.engine.test_cuda_graphs import Again, recorder_for

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TEXT = TextConfig(
    vocab_size=40,
    d_model=24,
    encoder_layers=1,
    decoder_layers=2,
    encoder_attention_heads=3,
    decoder_attention_heads=3,
    encoder_ffn_dim=24,
    decoder_ffn_dim=20,
    max_position_embeddings=160,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Florence2:
    """Random weights, norms' among them."""
    config = read_checkpoint(write_checkpoint(tmp_path_factory.mktemp("checkpoint"), size="tiny")).config
    torch.manual_seed(0)
    made = Florence2(replace(config, text=TEXT))
    for parameter in made.language_model.parameters():
        torch.nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
    made.language_model.fuse_projections()
    return made.to(DEVICE).eval()


@pytest.fixture(autouse=True)
def plain(model: Florence2) -> None:
    model.language_model.compiled_step = None


def admit(model: Florence2, cache: DecoderCache, sources: Sequence[int], num_beams: Sequence[int]) -> None:
    hidden = torch.randn(len(sources), max(sources), TEXT.d_model, generator=torch.Generator().manual_seed(sum(sources)))
    model.admit(cache, EncodedPrompts(hidden.to(DEVICE), tuple(sources)), num_beams)


@torch.inference_mode()
def test_steps_of_requests_that_come_and_go_are_equal(model: Florence2) -> None:
    text = model.language_model
    fused = FusedStep(text, TEXT.decoder_attention_heads, model.routing)
    caches = [model.new_cache(MOST_ROWS) for _ in range(2)]
    generator = torch.Generator().manual_seed(1)

    def step() -> None:
        tokens = torch.randint(TEXT.vocab_size, (caches[0].num_rows,), generator=generator).to(DEVICE)
        expected, view = model.decode_step(tokens, caches[0]), caches[1].begin_step()
        assert fused.can_take(view)
        torch.testing.assert_close(fused(tokens, view), expected, atol=1e-4, rtol=1e-4)
        caches[1].end_step()

    for cache in caches:
        admit(model, cache, [70], [1])
    step()
    step()
    for cache in caches:  # rows and queries in different orders, prompts of different lengths
        admit(model, cache, [3, 130], [3, 2])
        cache.reorder([0, 2, 3, 1, 5, 5])
    step()
    for cache in caches:
        cache.keep([1, 2])
        cache.reorder([2, 2, 0, 4, 3])
    step()


@torch.inference_mode()
def test_layers_that_look_for_adapters_leave_it_as_it_is(model: Florence2) -> None:
    model = deepcopy(model)
    fused, cache, other = (
        FusedStep(model.language_model, TEXT.decoder_attention_heads, model.routing),
        model.new_cache(1),
        model.new_cache(1),
    )
    adapt_layers(model)
    for one in (cache, other):
        admit(model, one, [5], [1])
    tokens = torch.tensor([7], device=DEVICE)
    torch.testing.assert_close(fused(tokens, cache.begin_step()), model.decode_step(tokens, other), atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_what_it_can_not_compute_is_left_to_pytorch(model: Florence2) -> None:
    routing = Routing()
    fused, cache = FusedStep(model.language_model, TEXT.decoder_attention_heads, routing), model.new_cache(MOST_ROWS + 1)
    admit(model, cache, [5] * MOST_ROWS, [1] * MOST_ROWS)
    assert fused.can_take(cache.begin_step())
    with torch.enable_grad():
        assert not fused.can_take(cache.begin_step())
    with routing.over((object(),)):  # type: ignore[arg-type]
        assert not fused.can_take(cache.begin_step())
    admit(model, cache, [5], [1])
    assert not fused.can_take(cache.begin_step())


@pytest.mark.parametrize("vocabulary", [20, 1100, 2050])
def test_tokens_are_ranked_as_by_pytorch(model: Florence2, vocabulary: int) -> None:
    fused = FusedStep(model.language_model, TEXT.decoder_attention_heads, model.routing)
    logits = (5 * torch.randn(2, vocabulary, generator=torch.Generator().manual_seed(vocabulary))).to(DEVICE)
    logits[1, [4, 9]] = 30.0  # a tie
    made, expected = fused.rank(logits, 12, (0, 7)), rank(logits, 12, (0, 7))
    assert made.dtype == expected.dtype
    assert made.shape == expected.shape
    assert made[0, :12].tolist() == expected[0, :12].tolist()
    assert made[1, :2].tolist() == [4, 9]
    torch.testing.assert_close(numbers(made), numbers(expected), atol=1e-5, rtol=1e-5)
    ranked = RankedLogits(logits, made, 12, (0, 7))
    for banned in ([(), ()], [(4,), (int(made[1, 2]), 9)], [tuple(range(11)), ()]):  # the last: more than were ranked to spare
        best, by_pytorch = best_tokens(ranked, 3, banned, (7,)), best_by_pytorch(logits, 3, banned, (7,), ())
        assert best.token_ids.tolist() == by_pytorch.token_ids.tolist()
        assert best.log_probs == pytest.approx(by_pytorch.log_probs, abs=1e-5)
        assert best.forced_log_probs[7] == pytest.approx(by_pytorch.forced_log_probs[7], abs=1e-5)


def numbers(ranked: Tensor) -> Tensor:
    return ranked[:, 12:].contiguous().view(torch.float32)


def test_logits_that_are_no_numbers_stay_so(model: Florence2) -> None:
    fused = FusedStep(model.language_model, TEXT.decoder_attention_heads, model.routing)
    logits = torch.zeros(2, 90, device=DEVICE)
    logits[1, 60] = torch.nan
    found = best_tokens(RankedLogits(logits, fused.rank(logits, 12, ()), 12, ()), 2).log_probs
    assert torch.from_numpy(found).isnan().any(dim=1).tolist() == [False, True]


@pytest.fixture
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attaching, "MOST_ROWS", 2)


@pytest.mark.usefixtures("few_rows")
def test_they_are_used_once_they_were_held_against_pytorch(model: Florence2) -> None:
    attach_fused_step(model)
    assert isinstance(model.language_model.compiled_step, FusedStep)


@pytest.mark.usefixtures("few_rows")
def test_they_are_not_used_where_they_give_something_else(
    model: Florence2, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(FusedStep, "__call__", lambda self, tokens, step: torch.randn(len(tokens), TEXT.vocab_size, device=DEVICE))
    attach_fused_step(model)
    assert model.language_model.compiled_step is None
    assert "fused ones differ from its own" in caplog.text


def test_without_triton_pytorch_computes_them(model: Florence2, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "florence2.model.gpu.kernels", None)
    monkeypatch.delattr("florence2.model.gpu.kernels", raising=False)
    attach_fused_step(model)
    assert model.language_model.compiled_step is None
    assert "can't be used here" in caplog.text


def test_they_can_be_switched_off(model: Florence2, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLORENCE2_NATIVE", "0")
    attach_fused_step(model)
    assert model.language_model.compiled_step is None


@torch.inference_mode()
def test_an_image_that_can_not_be_recorded_leaves_them_alone(model: Florence2, caplog: pytest.LogCaptureFixture) -> None:
    fused = model.language_model.compiled_step = FusedStep(model.language_model, TEXT.decoder_attention_heads, model.routing)
    recorder = Again()
    recorder.failure = RuntimeError("operation not permitted when stream is capturing")
    GraphedModel(model, recorder).encode_image(torch.zeros(1, 3, 64, 64, device=DEVICE))
    assert model.language_model.compiled_step is fused
    assert caplog.text.count("run as they come") == 1


@torch.inference_mode()
def test_where_they_fail_later_pytorch_computes_from_then_on(
    model: Florence2, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left for what was compiled")

    monkeypatch.setattr(FusedStep, "__call__", fail)
    model.language_model.compiled_step = FusedStep(model.language_model, TEXT.decoder_attention_heads, model.routing)
    recorded = GraphedModel(model, recorder_for(model))
    cache, plain = recorded.new_cache(1), model.new_cache(1)
    for one in (cache, plain):
        admit(model, one, [5], [1])
    logits = recorded.decode_step(torch.tensor([7]), cache)
    assert isinstance(logits, RankedLogits)  # still recorded
    assert model.language_model.compiled_step is None
    torch.testing.assert_close(logits.logits, model.decode_step(torch.tensor([7]), plain), atol=1e-4, rtol=1e-4)
    assert caplog.text.count("fused ones failed: no space left") == 1
