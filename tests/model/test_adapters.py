"""Adapters beside the weights: the same logits as PEFT's unmerged model, for each entry of a batch its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fixtures.adapters import EVERYTHING, TEXT, write_adapter
from fixtures.checkpoints import checkpoint_config, write_checkpoint
from florence2.model import Florence2
from florence2.model.adapters import ALL, ModelAdapter, Route, routes_of
from florence2.model.adapting import adapt_layers, fit_adapter
from florence2.model.precision import Precision
from florence2.weights import load_model, read_checkpoint
from florence2.weights.low_rank import read_factors
from tests.weights.test_lora import CASES, inputs, make_adapter

CPU = torch.device("cpu")
FP32 = Precision(torch.float32, torch.float32)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("base"), tokenizer=False)


def beside(model: Florence2, base: Path, folder: Path) -> ModelAdapter:
    adapt_layers(model)
    return fit_adapter(model, read_factors(read_checkpoint(base), folder))


def logits_of(model: Florence2, adapters: list[ModelAdapter | None], ids: list[list[int]], given: dict[str, torch.Tensor]) -> torch.Tensor:
    """The logits of a batch of prompts on one picture, each entry through its adapter, the picture too."""
    with torch.no_grad():
        features = []
        for adapter in adapters:
            with model.routing.over(() if adapter is None else (Route(adapter, ALL),)):
                features.append(model.encode_image(given["pixel_values"]))
        lengths = [len(prompt) for prompt in ids]
        padded = torch.tensor([prompt + [1] * (max(lengths) - len(prompt)) for prompt in ids])
        with model.routing.over(routes_of(adapters, CPU)):
            return model(torch.cat(features), padded, lengths, given["decoder_input_ids"].expand(len(ids), -1))


@pytest.mark.slow
@pytest.mark.parametrize("case", ["text", "patterns", "the common recipe"])
def test_logits_are_pefts(base: Path, tmp_path: Path, case: str) -> None:
    adapted = make_adapter(base, tmp_path, **CASES[case])
    model = load_model(read_checkpoint(base))
    given = inputs(adapted)
    prompt = given["input_ids"][0, 5:].tolist()
    ours = logits_of(model, [beside(model, base, tmp_path)], [prompt], given)
    with torch.no_grad():
        theirs = adapted(**given).logits
        plain = logits_of(model, [None], [prompt], given)
    assert torch.allclose(ours, theirs, atol=1e-4), (ours - theirs).abs().max()
    assert (ours - plain).abs().max() > 0.1
    assert model.routing.routes == ()


@pytest.mark.parametrize("packing", [None, FP32])
def test_entries_of_one_batch_go_through_their_own_adapters(base: Path, tmp_path: Path, packing: Precision | None) -> None:
    config = checkpoint_config()
    folders = [write_adapter(tmp_path / name, config, targets=EVERYTHING, seed=seed) for name, seed in (("a", 1), ("b", 2))]
    folders.append(write_adapter(tmp_path / "queries", config, targets=r".*q_proj", rank=2, seed=3))
    checkpoint = read_checkpoint(base)
    model = load_model(checkpoint, packing=packing)
    first, second, queries = (beside(model, base, folder) for folder in folders)
    generator = torch.Generator().manual_seed(0)
    given = {"pixel_values": torch.randn(1, 3, 64, 64, generator=generator), "decoder_input_ids": torch.tensor([[2, 0, 99, 100]])}
    prompts = [[0, 47, 82, 2], [0, 12, 2], [0, 47, 82, 2], [0, 5, 6, 7, 8, 2], [0, 47, 2], [0, 9, 2]]
    # The first adapter's entries lie apart, the second's are a range; the base is between them.
    adapters = [first, None, second, second, first, queries]
    together = logits_of(model, adapters, prompts, given)
    merged: dict[ModelAdapter | None, Florence2] = {None: load_model(checkpoint)}
    for adapter, folder in zip((first, second, queries), folders, strict=True):
        merged[adapter] = load_model(checkpoint, adapters=[folder])
    for index, (adapter, prompt) in enumerate(zip(adapters, prompts, strict=True)):
        alone = logits_of(merged[adapter], [None], [prompt], given)[0]
        assert torch.allclose(together[index], alone, atol=2e-4), (index, (together[index] - alone).abs().max())
    assert (first.changes_images, queries.changes_images) == (True, False)


def test_an_adapter_takes_its_own_bytes_and_packed_queries_keys_and_values_are_one_layer(base: Path, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a", checkpoint_config(), targets=TEXT)
    plain, packed = (beside(load_model(read_checkpoint(base), packing=packing), base, folder) for packing in (None, FP32))
    assert plain.num_bytes == sum(tensor.nbytes for update in plain.updates.values() for tensor in update)
    assert "language_model.decoder.layers.0.self_attn.qkv_proj" in packed.updates
    assert "language_model.decoder.layers.0.self_attn.v_proj" in plain.updates
