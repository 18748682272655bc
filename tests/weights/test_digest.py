"""The digest of the weights that answer: the same wherever they lie, another one for other weights, and read once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from florence2.errors import CheckpointError
from florence2.weights import digest
from florence2.weights.checkpoint import Checkpoint, read_checkpoint
from florence2.weights.digest import model_digest
from florence2.weights.source import resolve

DEMO = read_checkpoint(resolve("florence-2-demo"))


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def checkpoint(folder: Path, **files: bytes) -> Checkpoint:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_bytes(content)
    return replace(DEMO, folder=folder)


def adapter(folder: Path, weights: bytes, config: bytes = b"{}") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_bytes(config)
    (folder / "adapter_model.safetensors").write_bytes(weights)
    return folder


def test_one_file_has_the_digest_that_everybody_gives_it(tmp_path: Path) -> None:
    assert model_digest(DEMO) == sha256((DEMO.folder / "model.safetensors").read_bytes())
    assert model_digest(checkpoint(tmp_path / "b", pytorch_model__bin=b"pickled")) == sha256(b"pickled")
    both = checkpoint(tmp_path / "c", pytorch_model__bin=b"pickled", model__safetensors=b"safe")
    assert model_digest(both) == sha256(b"safe")  # which is loaded


def test_shards_and_adapters_count_in_their_order(tmp_path: Path) -> None:
    index = json.dumps({"weight_map": {"a": "s-2.safetensors", "b": "s-1.safetensors", "c": "s-2.safetensors"}}).encode()
    shards = {"s-1__safetensors": b"one", "s-2__safetensors": b"two", "model__safetensors__index__json": index}
    whole = checkpoint(tmp_path / "a", **shards)
    assert model_digest(whole) == sha256(f"{sha256(b'one')}\n{sha256(b'two')}".encode())
    first, second = adapter(tmp_path / "x", b"x"), adapter(tmp_path / "y", b"y")
    scaled = adapter(tmp_path / "z", b"x", b'{"lora_alpha": 2}')
    found = [model_digest(whole, given) for given in ([first], [second], [first, second], [second, first], [scaled])]
    assert len({*found, model_digest(whole)}) == 6
    assert model_digest(whole, str(first)) == found[0]
    assert model_digest(replace(whole, adapters=(first,)), [second]) == found[2]  # an adapter that was named as the model
    moved = shutil.copytree(first, tmp_path / "moved")
    assert model_digest(replace(whole, folder=shutil.copytree(whole.folder, tmp_path / "b")), [moved]) == found[0]


def test_a_file_is_read_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = checkpoint(tmp_path, model__safetensors=b"before")
    assert model_digest(given) == sha256(b"before")
    with monkeypatch.context() as patched:
        patched.setattr(digest.hashlib, "file_digest", lambda *given: pytest.fail("it is read again"))
        assert model_digest(given) == sha256(b"before")
    (tmp_path / "model.safetensors").write_bytes(b"behind")
    os.utime(tmp_path / "model.safetensors", ns=(1, 1))
    assert model_digest(given) == sha256(b"behind")


def test_the_name_that_the_hub_gives_a_file_is_its_digest(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / ("ab" * 32)).write_bytes(b"not read")
    given = checkpoint(tmp_path / "snapshots" / "main")
    (given.folder / "model.safetensors").symlink_to(tmp_path / "blobs" / ("ab" * 32))
    assert model_digest(given) == "ab" * 32


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no weights of a model"):
        model_digest(checkpoint(tmp_path / "a"))
    broken = checkpoint(tmp_path / "b", model__safetensors__index__json=b'{"weight_map": {"a": "s-1.safetensors"}}')
    with pytest.raises(CheckpointError, match=r"s-1.safetensors can't be read: No such file"):
        model_digest(broken)
    (broken.folder / "model.safetensors.index.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"index.json can't be read"):
        model_digest(broken)
    (adapter(tmp_path / "x", b"") / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="holds no weights of an adapter"):
        model_digest(DEMO, tmp_path / "x")
