"""The compiled step of rows that go through adapters: what layers compute one by one, and for each row the same bits as alone."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fixtures.adapters import EVERYTHING, TEXT, write_adapter
from fixtures.checkpoints import checkpoint_config, write_checkpoint
from florence2.model import Florence2
from florence2.model.adapters import ModelAdapter, routes_of
from florence2.model.adapting import adapt_layers, fit_adapter
from florence2.model.bart import EncodedPrompts
from florence2.model.cpu import kernels
from florence2.model.decoder_step import DecoderStep
from florence2.model.precision import Precision
from florence2.weights import load_model, read_checkpoint
from florence2.weights.low_rank import read_factors

CPU = torch.device("cpu")
PRECISIONS = {"fp32": Precision(), "bf16": Precision(decoder=torch.bfloat16), "int8": Precision(is_quantized=True)}
# Of all layers and the head, of some, of the encoder alone, and of more numbers than a vector has.
ADAPTERS = {
    "everything": (EVERYTHING, 4),
    "queries": (r".*q_proj", 3),
    "encoder": (r"language_model\.encoder\..*fc1", 2),
    "text": (TEXT, 37),
}
Model = tuple[Florence2, dict[str, ModelAdapter]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    kernels.prepare()
    if kernels.loaded() is None:
        pytest.skip("no compiled routines on this machine")
    folder = tmp_path_factory.mktemp("models")
    checkpoint = read_checkpoint(write_checkpoint(folder / "base", size="wide"))
    config = checkpoint_config("wide")
    made = {}
    for name, precision in PRECISIONS.items():
        model = load_model(checkpoint, packing=precision)
        adapt_layers(model)
        adapters = {}
        for seed, (kind, (targets, rank)) in enumerate(ADAPTERS.items()):
            own = write_adapter(folder / kind, config, targets=targets, rank=rank, seed=seed, scale=0.2 / rank**0.5)
            adapters[kind] = fit_adapter(model, read_factors(checkpoint, own))
        made[name] = (model, adapters)
    return made


@torch.inference_mode()
def logits_of(given: Model, kinds: Sequence[str | None], beams: Sequence[int], steps: int = 3) -> list[Tensor]:
    """Logits of each request, ``[steps, beams, vocabulary]``; prompts are encoded without adapters, so that only steps differ."""
    model, adapters = given
    width = model.config.text.d_model
    cache = model.new_cache(sum(beams))
    for kind, count in zip(kinds, beams, strict=True):
        hidden = torch.randn(1, 9, width, generator=torch.Generator().manual_seed(len(kind or "") + count))
        model.admit(cache, EncodedPrompts(hidden, (9,)), [count])
    routes = routes_of([adapters[kind] if kind else None for kind, count in zip(kinds, beams, strict=True) for _ in range(count)], CPU)
    found = []
    for number in range(steps):
        tokens = [7 * number + beam + 3 for count in beams for beam in range(count)]
        with model.routing.over(routes):
            found.append(model.decode_step(torch.tensor(tokens), cache).float().clone())
    return list(torch.stack(found).split(list(beams), dim=1))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    "kinds", [["everything"], ["text", None, "text"], ["queries", "everything", None, "encoder", "text", "queries"]], ids=str
)
def test_a_step_is_what_its_layers_compute_one_by_one(
    models: dict[str, Model], precision: str, kinds: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    beams = [1 + 2 * (number % 2) for number in range(len(kinds))]
    together = logits_of(models[precision], kinds, beams)
    without = logits_of(models[precision], [None] * len(kinds), beams)
    monkeypatch.setattr(DecoderStep, "can_take", lambda *_: False)
    one_by_one = logits_of(models[precision], kinds, beams)
    farthest = 1e-4 if precision == "fp32" else 0.05  # a last digit more or less is another number once keys are rounded to bfloat16
    for kind, own, other in zip(kinds, together, one_by_one, strict=True):
        torch.testing.assert_close(own, other, atol=farthest, rtol=1e-4, msg=lambda text, kind=kind: f"{kind}: {text}")
    moved = [float((own - plain).abs().max()) > 0.1 for own, plain in zip(together, without, strict=True)]
    if all(kinds):
        assert all(moved) == ("encoder" not in kinds)


@pytest.mark.parametrize("precision", PRECISIONS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    requests=st.lists(st.tuples(st.sampled_from([None, *ADAPTERS]), st.integers(1, 4)), min_size=2, max_size=8),
    place=st.integers(0, 7),
)
def test_a_row_has_the_same_bits_alone_and_among_others(
    models: dict[str, Model], precision: str, requests: list[tuple[str | None, int]], place: int
) -> None:
    kinds, beams = zip(*requests, strict=True)
    place %= len(requests)
    among = logits_of(models[precision], kinds, beams)[place]
    (alone,) = logits_of(models[precision], kinds[place : place + 1], beams[place : place + 1])
    assert torch.equal(alone, among)


def test_the_number_of_threads_changes_nothing(models: dict[str, Model]) -> None:
    before, found = torch.get_num_threads(), []
    try:
        for number in (1, 2, 3, 5):
            torch.set_num_threads(number)
            found.append(torch.cat(logits_of(models["int8"], ["everything", None, "text"], [1, 3, 2]), dim=1))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_an_adapter_that_is_gone_is_forgotten(models: dict[str, Model]) -> None:
    model, adapters = models["fp32"]
    step = model.language_model.compiled_step
    assert isinstance(step, DecoderStep)
    kept = dict(adapters["text"].updates)
    passing = ModelAdapter(kept, changes_images=False)
    logits_of((model, {"text": passing}), ["text"], [1])
    assert passing in step._updates
    number = len(step._updates)
    del passing
    assert len(step._updates) == number - 1
