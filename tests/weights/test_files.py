"""Which files are chosen."""

from __future__ import annotations

import pytest

from florence2.weights.files import choose, choose_container, is_adapter, is_shard

SETTINGS = ["config.json", "generation_config.json", "tokenizer.json"]


def test_one_container_and_no_code():
    listing = [*SETTINGS, "modeling.py", "model.safetensors", "pytorch_model.bin", "model.onnx", "README.md", "fp16/model.safetensors"]
    assert choose(listing) == [*SETTINGS, "model.safetensors"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["pytorch_model.bin", "model.safetensors.index.json"], "model.safetensors.index.json"),
        (["pytorch_model.bin.index.json", "pytorch_model.bin"], "pytorch_model.bin"),
        (["model.fp16.safetensors"], None),
    ],
)
def test_containers_have_an_order(names: list[str], expected: str | None):
    assert choose_container(names) == expected


def test_shards_come_with_their_index():
    shards = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    listing = [*shards, "pytorch_model.bin.index.json", "training_args.bin", *SETTINGS]
    assert choose(listing) == [*SETTINGS, "pytorch_model.bin.index.json", *shards]
    assert not is_shard("model-00001-of-00002.safetensors", "pytorch_model.bin.index.json")


def test_an_adapter_brings_a_base_that_lies_inside():
    listing = ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin", "base/config.json", "base/model.safetensors"]
    assert choose([*listing, "checkpoint-10/adapter_model.safetensors", "base/x.py"]) == [
        "adapter_config.json",
        "base/config.json",
        "base/model.safetensors",
        "adapter_model.safetensors",
    ]


def test_whole_weights_make_it_no_adapter():
    assert is_adapter(["adapter_config.json", "adapter_model.bin", "config.json"])
    assert not is_adapter(["adapter_config.json", "model.safetensors"])
    assert choose(["adapter_config.json", "config.json", "model.safetensors"]) == ["config.json", "model.safetensors"]
