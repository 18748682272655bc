"""Containers of tensors, and what is wrong with those that are refused."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from florence2.errors import CheckpointError
from florence2.weights.tensors import open_file, open_folder

VALUES = {"a": torch.arange(6, dtype=torch.float32).reshape(2, 3), "b": torch.ones(4, dtype=torch.float16), "c": torch.tensor(0.5)}


def write(path: Path) -> Path:
    if path.suffix == ".bin":
        torch.save(VALUES, path)
    else:
        save_file(VALUES, path)
    return path


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_values_come_in_the_type_that_is_asked_for(tmp_path: Path, name: str, dtype: torch.dtype):
    tensors = open_folder(write(tmp_path / name).parent)
    assert {key: stored.shape for key, stored in tensors.items()} == {key: tuple(value.shape) for key, value in VALUES.items()}
    for key, value in VALUES.items():
        read = tensors[key].read(dtype)
        assert read.dtype == dtype
        assert torch.equal(read, value.to(dtype))


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs a list of this process's mappings")
def test_values_that_keep_their_type_are_mapped(tmp_path: Path):
    path = write(tmp_path / "model.safetensors")
    value = open_file(path)["a"].read(torch.float32)
    assert str(path) in Path("/proc/self/maps").read_text()
    assert torch.equal(value, VALUES["a"])


def test_containers_are_chosen_in_order(tmp_path: Path):
    write(tmp_path / "pytorch_model.bin")
    save_file({"only": torch.zeros(1)}, tmp_path / "model.safetensors")
    assert list(open_folder(tmp_path)) == ["only"]


def test_pickles_of_before_the_zip_format_are_read(tmp_path: Path):
    torch.save(VALUES, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    assert torch.equal(open_folder(tmp_path)["a"].read(torch.float32), VALUES["a"])


class Bomb:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("exploded"),))


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_refused_and_never_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool):
    monkeypatch.chdir(tmp_path)
    torch.save({"a": torch.zeros(1), "b": Bomb()}, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is refused.*reading it would run"):
        open_folder(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        open_folder(tmp_path)
    assert not (tmp_path / "exploded").exists()


def test_other_pickled_things_are_refused_by_name(tmp_path: Path):
    torch.save({"a": torch.zeros(1), "epoch": 3}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"1 other value\(s\): epoch"):
        open_folder(tmp_path)
    torch.save([torch.zeros(1)], tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="a table of named tensors, got list"):
        open_folder(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("keep", [0, 7, 60, -5])
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, name: str, keep: int):
    path = write(tmp_path / name)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=rf"{name} is (damaged|refused)"):
        open_folder(tmp_path)


def test_a_bad_header_is_refused(tmp_path: Path):
    path = write(tmp_path / "model.safetensors")
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header["a"]["data_offsets"] = [0, 10**9]
    changed = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(changed)) + changed + data[8 + length :])
    with pytest.raises(CheckpointError, match="damaged"):
        open_folder(tmp_path)
    path.write_bytes(b"<!DOCTYPE html><html>not found</html>")
    with pytest.raises(CheckpointError, match="damaged"):
        open_folder(tmp_path)


def test_a_git_lfs_pointer_says_what_it_is(tmp_path: Path):
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(CheckpointError, match="git lfs pull"):
        open_folder(tmp_path)


def test_quantised_values_are_refused_by_name(tmp_path: Path):
    save_file({"a": torch.zeros(3, dtype=torch.int8)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="a is stored as I8"):
        open_folder(tmp_path)


def test_a_folder_without_weights_says_what_it_holds(tmp_path: Path):
    (tmp_path / "other.safetensors").touch()
    with pytest.raises(CheckpointError, match=r"expected model\.safetensors.*found other\.safetensors"):
        open_folder(tmp_path)


class TestShards:
    def write_shards(self, folder: Path, weight_map: dict) -> None:
        save_file({"a": torch.zeros(1)}, folder / "model-00001-of-00002.safetensors")
        save_file({"b": torch.ones(1)}, folder / "model-00002-of-00002.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

    def test_all_of_them_are_read(self, tmp_path: Path):
        self.write_shards(tmp_path, {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"})
        assert {name: stored.read(torch.float32).item() for name, stored in open_folder(tmp_path).items()} == {"a": 0, "b": 1}

    def test_missing_files_and_tensors_are_named(self, tmp_path: Path):
        self.write_shards(tmp_path, {"a": "model-00001-of-00002.safetensors", "c": "model-00002-of-00002.safetensors"})
        with pytest.raises(CheckpointError, match=r"1 tensor\(s\) that no file holds: c"):
            open_folder(tmp_path)
        (tmp_path / "model-00002-of-00002.safetensors").unlink()
        with pytest.raises(CheckpointError, match=r"not there: model-00002-of-00002\.safetensors"):
            open_folder(tmp_path)

    @pytest.mark.parametrize("weight_map", [{}, {"a": "../elsewhere.safetensors"}, {"a": 3}])
    def test_a_strange_index_is_refused(self, tmp_path: Path, weight_map: dict):
        self.write_shards(tmp_path, weight_map)
        with pytest.raises(CheckpointError, match=r"index\.json"):
            open_folder(tmp_path)
