"""Packed models answer as plain ones do: the same in float32, within rounding elsewhere, with and without compiled routines."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from fixtures.checkpoints import write_checkpoint
from florence2.model import Florence2
from florence2.model.attention import KeyLengths, attend
from florence2.model.cpu import building, kernels
from florence2.model.cpu.packed import PackedLinear, can_pack
from florence2.model.cpu.quantized import QuantizedLinear, can_quantize, quantize_rows
from florence2.model.linear import Linear
from florence2.model.precision import Precision
from florence2.model.refined_head import RefinedHead
from florence2.model.top_k import top_k_indices
from florence2.weights import load_model, read_checkpoint

BF16 = Precision(torch.bfloat16, torch.bfloat16)
INT8 = Precision(torch.float32, torch.float32, is_quantized=True)

# Other processors and builds of PyTorch have plain layers instead, and test_this_pytorch_has_the_routines says where they must not.
needs_bf16 = pytest.mark.skipif(not can_pack(torch.bfloat16), reason="no routines for bfloat16 on this machine")
needs_int8 = pytest.mark.skipif(not can_quantize(), reason="no routines for 8 bits on this machine")
DTYPES = [torch.float32, pytest.param(torch.bfloat16, marks=needs_bf16)]


@pytest.fixture(params=["compiled", "plain"])
def routines(request, monkeypatch):
    """Everything once with the compiled routines and once without; where there is a g++, they have to be there."""
    if request.param == "plain":
        monkeypatch.setattr(kernels, "_kernels", None)
        return None
    kernels.prepare()
    if kernels.loaded() is None and not shutil.which("g++"):
        pytest.skip("no g++ on this machine")
    assert kernels.loaded() is not None
    return kernels.loaded()


def closeness(ours: Tensor, theirs: Tensor) -> float:
    """1 for equal directions."""
    return float(torch.nn.functional.cosine_similarity(ours.flatten().double(), theirs.flatten().double(), dim=0))


def answers(model: Florence2) -> tuple[Tensor, Tensor]:
    """Encoded prompts of different lengths, and the logits of some steps in which requests come, go and swap rows."""
    generator = torch.Generator().manual_seed(1)
    with torch.inference_mode():
        features = model.encode_image(torch.randn(2, 3, 64, 64, generator=generator))
        encoded = model.encode_prompt(features, torch.tensor([[0, 9, 8, 7, 2], [0, 5, 2, 1, 1]]), [5, 3])
        cache = model.new_cache(16)
        model.admit(cache, encoded, [3, 1])
        steps = []
        for number in range(4):
            steps.append(model.decode_step(torch.arange(cache.num_rows) + 20 * number, cache).float())
            cache.reorder([1, 0, 2, 3])
        model.admit(cache, encoded, [2, 2])
        steps.append(model.decode_step(torch.arange(cache.num_rows), cache).float())
        cache.keep([1, 2])
        steps.append(model.decode_step(torch.arange(cache.num_rows), cache).float())
    return encoded.hidden[0].float(), torch.cat(steps)


@pytest.mark.slow
@pytest.mark.parametrize("size", ["tiny", "wide"])
@pytest.mark.parametrize(
    ("precision", "least"),
    [
        pytest.param(Precision(), 1 - 1e-9, id="fp32"),
        pytest.param(BF16, 0.99, id="bf16", marks=needs_bf16),
        pytest.param(INT8, 0.97, id="int8", marks=needs_int8),
    ],
)
def test_a_packed_model_answers_like_the_plain_one(tmp_path: Path, routines, precision: Precision, least: float, size: str) -> None:
    checkpoint = read_checkpoint(write_checkpoint(tmp_path, size=size))
    packed, plain = load_model(checkpoint, packing=precision), load_model(checkpoint)
    for ours, theirs in zip(answers(packed), answers(plain), strict=True):
        assert closeness(ours, theirs) > least
        if precision == Precision():
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_an_untied_head_is_packed_as_its_own(tmp_path: Path) -> None:
    from fixtures.checkpoints import checkpoint_config, in_layout, random_state, write_weights

    state = random_state(checkpoint_config("tiny"))
    state["language_model.lm_head.weight"] = torch.flip(state["language_model.shared.weight"], dims=[0])
    folder = write_checkpoint(tmp_path, size="tiny")
    names = {key.replace("language_model.lm_head.weight", "lm_head.weight"): value for key, value in state.items()}
    write_weights(folder, in_layout(names, "native"), "safetensors")
    checkpoint = read_checkpoint(folder)
    hidden = torch.randn(3, 32)
    with torch.inference_mode():
        expected = load_model(checkpoint).language_model.head(hidden)
        torch.testing.assert_close(load_model(checkpoint, packing=Precision()).language_model.head(hidden), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 3, 70])
@torch.inference_mode()
def test_a_packed_layer_does_gelu_and_residual_as_the_plain_one(dtype: torch.dtype, rows: int) -> None:
    plain = Linear(48, 96).to(dtype)
    packed = PackedLinear(plain.weight, plain.bias, rows=8)
    hidden, residual = torch.randn(rows, 2, 48).to(dtype), torch.randn(rows, 2, 96).to(dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    for options in ({}, {"gelu": True}, {"add_to": residual}, {"gelu": True, "add_to": residual}):
        expected = plain(hidden, **copied(options))
        given = copied(options)
        got = packed(hidden, **given)
        torch.testing.assert_close(got, expected, atol=tolerance, rtol=tolerance)
        assert "add_to" not in given or got.data_ptr() == given["add_to"].data_ptr()


def copied(options: dict[str, Any]) -> dict[str, Any]:
    """The options, with a copy of what is overwritten."""
    return {name: value.clone() if isinstance(value, Tensor) else value for name, value in options.items()}


@needs_int8
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_a_quantized_layer_is_within_its_steps(routines, dtype: torch.dtype) -> None:
    plain = Linear(64, 128)
    plain.weight[5] = 0  # a channel of zeros has no scale of its own
    layer = QuantizedLinear(plain.weight, plain.bias, rows=8)
    hidden = (torch.randn(7, 64) + 0.5).to(dtype)
    exact = plain(hidden.float())
    got = layer(hidden)
    assert got.dtype == dtype
    assert float((got.float() - exact).abs().max()) < 0.05
    torch.testing.assert_close(got[:, 5].float(), plain.bias[5].expand(7), atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(layer(torch.zeros(2, 64)), plain.bias.expand(2, -1), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("values", [[-3.0, 0.0, 5.0, 1.25], [2.0, 4.0, 8.0], [-1.0, -0.5], [0.0, 0.0], [7.5, 7.5, 7.5]], ids=str)
@pytest.mark.parametrize("top", [255, 127])
def test_quantized_rows_keep_the_ends_of_their_ranges(routines, values: list[float], top: int) -> None:
    quantize = quantize_rows if routines is None else routines.quantize_rows
    tensor = torch.tensor([values, [10 * value for value in values]] * 20)
    levels, scales, lows = quantize(tensor, top)
    assert int(levels.max()) <= top
    back = levels * scales.unsqueeze(-1) + lows.unsqueeze(-1)
    assert bool(((back - tensor).abs() <= scales.unsqueeze(-1) * 0.51).all())
    for end in (tensor.amin(1), tensor.amax(1)):
        torch.testing.assert_close(back[tensor == end.unsqueeze(-1)], tensor[tensor == end.unsqueeze(-1)])


@needs_int8
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [24, 37, 128])
@torch.inference_mode()
def test_what_a_quantized_layer_does_in_one_pass_is_what_layers_do_one_by_one(routines, dtype: torch.dtype, width: int) -> None:
    """Norm before, GELU and the next layer's levels behind, and the sum in place; of rows that lie anywhere."""
    torch.manual_seed(0)
    first, second, norm = Linear(width, 51), Linear(51, width), torch.nn.LayerNorm(width)
    norm.weight.copy_(torch.rand(width) + 0.5)
    norm.bias.copy_(torch.randn(width))
    layers = [QuantizedLinear(layer.weight, layer.bias, rows=8) for layer in (first, second)]
    values = torch.randn(6, 5, 4, width).to(dtype)
    moved = values.permute(2, 0, 1, 3)
    given = norm(moved.float())
    exact = moved.float() + second(torch.nn.functional.gelu(first(given)))

    place = moved.clone(memory_format=torch.contiguous_format)
    inner = layers[0](moved, norm=norm.to(dtype), gelu=True, into=layers[1])
    assert isinstance(inner, Tensor) == (routines is None)
    got = layers[1](inner, add_to=place)
    assert got.data_ptr() == place.data_ptr()
    assert got.dtype == dtype
    assert float((got.float() - exact).abs().max()) < (0.08 if dtype == torch.float32 else 0.15)
    if dtype == torch.float32:  # the same steps with nothing handed over
        single = layers[1](layers[0](moved, norm=norm, gelu=True), add_to=moved.clone(memory_format=torch.contiguous_format))
        assert torch.equal(got, single)
    scattered = values.clone().permute(2, 0, 1, 3)
    tolerance = 1e-6 if dtype == torch.float32 else 0.01  # rounded to bfloat16 once more
    torch.testing.assert_close(layers[1](inner, add_to=scattered), got, atol=tolerance, rtol=tolerance)


@needs_int8
@pytest.mark.parametrize("options", [{}, {"gelu": True}], ids=str)
@torch.inference_mode()
def test_a_row_in_8_bits_is_the_same_whatever_lies_beside_it(routines, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layer, norm = QuantizedLinear(torch.randn(40, 72), torch.randn(40), rows=8), torch.nn.LayerNorm(72)
    values = torch.randn(700, 72) * torch.logspace(-3, 3, 700).unsqueeze(-1)
    whole = layer(values, norm=norm, **options)
    for first, last in ((0, 1), (3, 90), (650, 700)):
        assert torch.equal(layer(values[first:last], norm=norm, **options), whole[first:last])


@needs_bf16
@torch.inference_mode()
def test_the_head_ranks_what_is_close_exactly() -> None:
    """Logits around 300 that differ by 0.01 are one number in bfloat16."""
    torch.manual_seed(0)
    table = torch.randn(2000, 64)
    table[700:720] = table[700] + torch.randn(20, 64) * 1e-3
    hidden = (table[700] * 5).unsqueeze(0)
    exact = hidden @ table.T
    layer = PackedLinear(table.bfloat16(), None, rows=8)
    rough = layer(hidden.bfloat16()).float()
    refined = RefinedHead(layer, table)(hidden.bfloat16())
    wanted = (hidden.bfloat16().float() @ table.T).topk(20).indices
    assert rough[0, wanted[0]].unique().numel() < 5  # so there is something to refine
    assert sorted(refined.topk(20).indices[0].tolist()) == list(range(700, 720))
    torch.testing.assert_close(refined[0, wanted[0]], (hidden.bfloat16().float() @ table.T)[0, wanted[0]], atol=1e-3, rtol=1e-5)
    assert float((refined - exact).abs().max()) < 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("head_width", [8, 32, 64])
@pytest.mark.parametrize("tokens", [1, 3, 20])
@torch.inference_mode()
def test_attention_is_the_same_by_every_way(routines, dtype: torch.dtype, head_width: int, tokens: int) -> None:
    query, keys, values = (torch.randn(3, 2, count, head_width).to(dtype) for count in (tokens, 41, 41))
    lengths = [41, 1, 17]
    got = attend(query, keys, values, KeyLengths.of(lengths, 41, torch.device("cpu")))
    for entry, length in enumerate(lengths):
        parts = (query[entry].float(), keys[entry, :, :length].float(), values[entry, :, :length].float())
        expected = torch.nn.functional.scaled_dot_product_attention(*parts).transpose(0, 1).flatten(1)
        tolerance = 1e-5 if dtype == torch.float32 else 0.03
        torch.testing.assert_close(got[entry].float(), expected, atol=tolerance, rtol=tolerance)


def test_the_largest_are_found_in_chunks_and_in_the_tail() -> None:
    values = torch.randn(5, 64 * 30 + 17)
    values[0, -1] = 99.0
    for count in (1, 6, 29, 64):
        assert top_k_indices(values, count).tolist() == values.topk(count).indices.tolist()


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() != "x86_64", reason="PyTorch has oneDNN on Linux and x86-64")
def test_this_pytorch_has_the_routines() -> None:
    """Speed depends on operators that PyTorch does not document; this fails when a new version has lost them."""
    assert can_pack(torch.float32)
    assert can_quantize()
    assert not can_pack(torch.float64)


@pytest.mark.slow
def test_loading_the_routines_leaves_the_processors_arithmetic_alone() -> None:
    """A library linked with -ffast-math would make the thread that loads it treat denormal precision as zero."""
    script = """
        import numpy
        from florence2.model.cpu import kernels
        kernels.prepare()
        print(float(numpy.float32(1e-40) * numpy.float32(0.5)) > 0)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "True"


@pytest.fixture
def fresh(monkeypatch, tmp_path: Path) -> ModuleType:
    """The module of the routines as a new process has it: an empty cache, a search path of its own, no libraries in the package."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    spec = importlib.util.spec_from_file_location("fresh_kernels", kernels.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "fitting_libraries", lambda *_: [])
    return module


def cached(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache").glob("florence2/*"))


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the routines are for Linux")
needs_compiler = pytest.mark.skipif(sys.platform != "linux" or not shutil.which("g++"), reason="no g++ on this machine")


@on_linux
def test_without_a_compiler_there_are_no_routines_and_a_line_says_so(fresh: ModuleType, monkeypatch, tmp_path: Path, caplog) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with caplog.at_level("INFO", logger="florence2"):
        fresh.prepare()
    assert fresh.loaded() is None
    assert "no g++" in caplog.text
    assert cached(tmp_path) == []


@on_linux
def test_a_compiler_that_fails_is_no_error(fresh: ModuleType, monkeypatch, tmp_path: Path, caplog) -> None:
    calls = tmp_path / "calls"
    compiler = tmp_path / "g++"
    compiler.write_text(f'#!/bin/sh\necho "$@" >> {calls}\necho "cannot find -lgomp" >&2\nexit 1\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with caplog.at_level("INFO", logger="florence2"):
        fresh.prepare()
        fresh.prepare()
    assert fresh.loaded() is None
    assert "failed: cannot find -lgomp" in caplog.text
    assert calls.read_text().count("kernels.cpp\n") == 1  # the second call does not try again
    assert cached(tmp_path) == []


@pytest.fixture(scope="module")
def library() -> bytes:
    """The routines, built once for all tests here, and soon: what is tested with them is where libraries come from."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "PORTABLE", (*building.PORTABLE, "-O0"))
        return building.build("g++", building.NATIVE)


@needs_compiler
@pytest.mark.parametrize(("mode", "num_kept"), [(0o700, 1), (0o755, 1), (0o770, 0), (0o777, 0)])
def test_a_cache_that_others_can_write_to_is_not_used(
    fresh: ModuleType, library: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: int, num_kept: int
) -> None:
    monkeypatch.setattr(fresh, "build", lambda *_: library)
    folder = tmp_path / "cache" / "florence2"
    folder.mkdir(parents=True)
    folder.chmod(mode)
    fresh.prepare()
    assert fresh.loaded() is not None
    assert len(cached(tmp_path)) == num_kept


@needs_compiler
def test_a_file_in_the_way_of_the_cache_is_no_error(
    fresh: ModuleType, library: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(fresh, "build", lambda *_: library)
    (tmp_path / "cache").write_text("in the way")
    fresh.prepare()
    assert fresh.loaded() is not None
    assert (tmp_path / "cache").read_text() == "in the way"
