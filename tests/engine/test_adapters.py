"""Several adapters over one base: each request has the answer of its own merged model, whoever shares its steps."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file

import florence2
from fixtures.adapters import EVERYTHING, TEXT, write_adapter
from fixtures.checkpoints import checkpoint_config, write_checkpoint
from fixtures.tokenizer import Layout
from florence2.engine.cuda_graphs import GraphedModel
from florence2.engine.engine import Engine
from florence2.errors import InvalidOption, NeedsMerging
from florence2.results import Result
from florence2.tasks.tokenizer import Tokenizer
from florence2.weights import load_model, read_checkpoint
from tests.engine.test_cuda_graphs import Again

TARGETS = {"text": TEXT, "everything": EVERYTHING, "head": "lm_head", "values": r"language_model\..*v_proj"}
PROMPTS = ("<CAPTION>", "<OD>", "what is in the picture", "<DETAILED_CAPTION>")


def key(result: Result) -> tuple[list[int], str]:
    return result.token_ids, result.raw


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return {
        name: write_adapter(folder / name, checkpoint_config(), targets=targets, seed=seed, scale=0.2)
        for seed, (name, targets) in enumerate(TARGETS.items())
    }


@pytest.fixture(scope="module")
def shared(folder: Path, adapters: dict[str, Path]) -> Iterator[Engine]:
    with florence2.load(folder, device="cpu", precision="fp32") as engine:
        for name, source in adapters.items():
            engine.add_adapter(name, source)
        yield engine


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["native", "original"])
def test_answers_are_those_of_the_merged_model(tmp_path: Path, image: Image.Image, layout: Layout) -> None:
    base = write_checkpoint(tmp_path / "base", layout=layout)
    with florence2.load(base, device="cpu", precision="fp32") as shared:
        plain = key(shared.run(image, "<CAPTION>", max_new_tokens=20))
        for name in ("text", "everything"):
            targets = TARGETS[name]
            adapter = write_adapter(tmp_path / name, checkpoint_config("tiny", layout), targets=targets, scale=0.2)
            shared.add_adapter(name, adapter)
            with florence2.load(base, device="cpu", precision="fp32", adapters=[adapter]) as merged:
                for num_beams in (1, 3):
                    asked = [engine.run(image, "<CAPTION>", max_new_tokens=20, num_beams=num_beams) for engine in (shared, merged)]
                    mine = shared.run(image, "<CAPTION>", max_new_tokens=20, adapter=name, num_beams=num_beams)
                    assert key(mine) == key(asked[1]) != key(asked[0])
                    assert mine.log_probability == pytest.approx(asked[1].log_probability, abs=1e-3)
        assert key(shared.run(image, "<CAPTION>", max_new_tokens=20)) == plain


REQUESTS = st.lists(
    st.tuples(st.sampled_from([None, *TARGETS]), st.sampled_from(PROMPTS), st.sampled_from([1, 1, 3]), st.integers(0, 2)),
    min_size=2,
    max_size=8,
)


@settings(max_examples=8, deadline=None)
@given(REQUESTS)
def test_an_answer_is_the_same_alone_and_among_others(shared: Engine, requests: list[tuple[str | None, str, int, int]]) -> None:
    pictures = [Image.new("RGB", (40, 30), colour) for colour in ("red", "green", "blue")]

    def submit(request: tuple[str | None, str, int, int]):  # type: ignore[no-untyped-def]
        adapter, prompt, num_beams, picture = request
        return shared.submit(pictures[picture], prompt, adapter=adapter, num_beams=num_beams, max_new_tokens=12)

    alone = [key(submit(request).result()) for request in requests]
    together = [submit(request) for request in requests]
    assert [key(future.result()) for future in together] == alone


def test_images_are_shared_unless_an_adapter_changes_how_they_are_encoded(shared: Engine) -> None:
    picture = Image.new("RGB", (50, 50), "yellow")

    def is_cached(adapter: str | None) -> bool:
        result = shared.run(picture, "<CAPTION>", adapter=adapter, max_new_tokens=3)
        assert result.usage is not None
        return result.usage.is_image_cached

    assert [is_cached(name) for name in (None, "text", "head", "everything", "everything", None)] == [False, True, True, False, True, True]


def test_adapters_come_and_go(folder: Path, adapters: dict[str, Path], image: Image.Image) -> None:
    with florence2.load(folder, device="cpu", precision="fp32") as engine:
        with pytest.raises(InvalidOption, match="no adapter 'mine'"):
            engine.submit(image, "<CAPTION>", adapter="mine")
        engine.add_adapter("mine", adapters["text"])
        with pytest.raises(InvalidOption, match="already"):
            engine.add_adapter("mine", adapters["head"])
        assert engine.adapters == ("mine",)
        before = key(engine.run(image, "<CAPTION>", adapter="mine", max_new_tokens=20))
        running = engine.submit(image, "<CAPTION>", adapter="mine", max_new_tokens=20)
        engine.remove_adapter("mine")
        assert engine.adapters == ()
        assert key(running.result()) == before  # it was there when the request came
        for call in (engine.remove_adapter, lambda name: engine.run_images([image], "<CAPTION>", adapter=name)):
            with pytest.raises(InvalidOption, match="no adapter 'mine'"):
                call("mine")
        engine.add_adapter("mine", adapters["everything"])  # the name may mean another one afterwards
        assert key(engine.run(image, "<CAPTION>", adapter="mine", max_new_tokens=20)) != before


def test_what_needs_merging_says_how(shared: Engine, adapters: dict[str, Path], tmp_path: Path) -> None:
    dora = shutil.copytree(adapters["text"], tmp_path / "dora")
    tensors = load_file(dora / "adapter_model.safetensors")
    ups = {name: factor for name, factor in tensors.items() if name.endswith("lora_B.weight")}
    magnitudes = {name.replace("lora_B.weight", "lora_magnitude_vector"): torch.ones(len(factor)) for name, factor in ups.items()}
    save_file({**tensors, **magnitudes}, dora / "adapter_model.safetensors")
    with pytest.raises(NeedsMerging, match=r"DoRA.*load it merged.*--adapter"):
        shared.add_adapter("dora", dora)
    assert "dora" not in shared.adapters


def test_steps_with_adapters_are_not_recorded(folder: Path, adapters: dict[str, Path], image: Image.Image, shared: Engine) -> None:
    checkpoint, recorder = read_checkpoint(folder), Again()
    model = GraphedModel(load_model(checkpoint), recorder)
    with Engine(checkpoint, model, Tokenizer.load(folder)) as engine:
        engine.add_adapter("everything", adapters["everything"])
        for adapter in (None, "everything", None):
            before = recorder.recordings
            result = engine.run(image, "<OD>", adapter=adapter, max_new_tokens=10)
            assert key(result) == key(shared.run(image, "<OD>", adapter=adapter, max_new_tokens=10))
            assert (recorder.recordings > before) == (adapter is None and before == 0)
