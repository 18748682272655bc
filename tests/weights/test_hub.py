"""Downloading, with the real client code against a stand-in on loopback."""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import florence2
from fixtures.checkpoints import write_checkpoint
from florence2.errors import CheckpointError, DownloadError, ModelNotFound
from florence2.weights import hub as hub_module
from florence2.weights import resolve
from florence2.weights.cache import is_whole
from florence2.weights.hub import fetch, is_complete
from tests.hub import Hub, running_hub

NAME = "owner/tiny"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_checkpoint(tmp_path_factory.mktemp("served"))
    (folder / "modeling.py").write_text("raise SystemExit('code must never be fetched')")
    (folder / "model.onnx").write_bytes(b"not needed")
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> Iterator[Hub]:
    with running_hub() as served:
        served.add(NAME, checkpoint)
        monkeypatch.setenv("HF_ENDPOINT", served.address)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        for name in ("HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(hub_module, "RETRY_DELAY_S", 0.0)
        yield served


def test_only_what_is_read_is_fetched_and_only_once(hub: Hub, checkpoint: Path):
    folder = resolve(NAME)
    fetched = hub.fetched()
    assert sorted(fetched) == sorted(
        ["config.json", "generation_config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]
    )
    assert (folder / "model.safetensors").read_bytes() == (checkpoint / "model.safetensors").read_bytes()
    assert not (folder / "modeling.py").exists()
    assert resolve(NAME) == folder
    assert hub.fetched() == fetched


def test_safetensors_are_preferred_to_pickles(hub: Hub, checkpoint: Path, tmp_path: Path):
    both = write_checkpoint(tmp_path / "both", container="sharded")
    write_checkpoint(both, container="bin")
    hub.add("owner/both", both)
    folder = resolve("owner/both")
    assert not list(folder.glob("*.bin"))
    assert len(list(folder.glob("*.safetensors"))) == 2


def test_a_revision_is_what_was_asked_for(hub: Hub, tmp_path: Path):
    other = write_checkpoint(tmp_path / "other", seed=7)
    hub.add(NAME, other, revision="v2")
    folder = resolve(f"{NAME}@v2")
    assert (folder / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    assert folder != resolve(NAME)
    commit = folder.name
    hub.asked.clear()
    assert resolve(f"{NAME}@{commit}") == folder
    assert hub.asked == []


def test_an_alias_means_its_repository(hub: Hub, checkpoint: Path):
    hub.add("florence-community/Florence-2-base-ft", checkpoint, revision="v1")
    folder = resolve("florence-2-base-ft@v1")
    assert folder.parent.parent.name == "models--florence-community--Florence-2-base-ft"


def test_a_broken_download_goes_on_where_it_stopped(hub: Hub, checkpoint: Path):
    size = (checkpoint / "model.safetensors").stat().st_size
    hub.break_after["model.safetensors"] = 5000
    with pytest.raises(DownloadError, match=r"broke off after 0\.0 of 0\.7 MB.*what has arrived is kept"):
        resolve(NAME)
    hub.break_after.clear()
    hub.broken.clear()
    hub.asked.clear()
    folder = resolve(NAME)
    assert (folder / "model.safetensors").read_bytes() == (checkpoint / "model.safetensors").read_bytes()
    assert [asked.range for asked in hub.asked if asked.path.startswith("/files/")] == ["bytes=5000-"]
    assert hub.fetched() == ["model.safetensors"]
    assert size > 5000


def test_a_transfer_that_is_cut_is_taken_up_within_one_call(hub: Hub, checkpoint: Path):
    hub.break_after["model.safetensors"] = 300_000
    hub.stays_broken = False
    folder = resolve(NAME)
    assert (folder / "model.safetensors").read_bytes() == (checkpoint / "model.safetensors").read_bytes()
    ranges = [asked.range for asked in hub.asked if asked.path.startswith("/files/")]
    assert ranges == [None, "bytes=300000-", "bytes=600000-"]


def test_what_is_fetched_is_told(hub: Hub, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, logger="florence2"):
        resolve(NAME)
    assert "fetching model.safetensors of owner/tiny, 0.0 of 0.7 MB are here" in caplog.text


def test_what_was_put_together_wrongly_is_thrown_away(hub: Hub, checkpoint: Path):
    hub.break_after["model.safetensors"] = 5000
    with pytest.raises(DownloadError):
        resolve(NAME)
    hub.break_after.clear()
    hub.broken.clear()
    (partial,) = Path(os.environ["HF_HOME"]).rglob("*.florence2-partial")
    partial.write_bytes(b"x" * 5000)
    with pytest.raises(DownloadError, match="arrived damaged"):
        resolve(NAME)
    assert (resolve(NAME) / "model.safetensors").read_bytes() == (checkpoint / "model.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_what_arrives_damaged_over_one_connection_is_thrown_away(hub: Hub, checkpoint: Path, name: str):
    hub.damaged.add(name)
    with pytest.raises(DownloadError, match=f"{name} of owner/tiny arrived damaged and was thrown away. Try again"):
        resolve(NAME)
    hub.damaged.clear()
    assert (resolve(NAME) / name).read_bytes() == (checkpoint / name).read_bytes()


def test_tags_of_git_are_checked_too(tmp_path: Path):
    file = tmp_path / "config.json"
    file.write_bytes(b"{}\n")
    assert is_whole(file, "0967ef424bce6791893e9a57bb952f80fd536e93")  # git hash-object
    assert not is_whole(file, "0967ef424bce6791893e9a57bb952f80fd536e94")
    assert is_whole(file, "ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356")  # sha256sum
    assert not is_whole(file, "ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442357")
    assert is_whole(file, "another-tag")


class TestCacheThatCanNotBeWritten:
    """The network is not to blame."""

    def refused(self, hub: Hub, match: str) -> None:
        hub.asked.clear()
        with pytest.raises(DownloadError, match=match) as told:
            resolve(NAME)
        message = told.value.message
        assert "HF_HUB_CACHE" in message
        assert "network" not in message
        assert len(message) < 500
        assert hub.fetched() == []

    @pytest.mark.parametrize("behind", ["", "sub", "sub/sub"])
    def test_a_file_in_its_place(self, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, behind: str):
        (tmp_path / "file").write_text("")
        cache = tmp_path / "file" / behind
        monkeypatch.setenv("HF_HUB_CACHE", str(cache))
        self.refused(hub, f"kept in the cache {cache}: a file is in the way")

    @pytest.mark.parametrize("inner", ["models--owner--tiny", "models--owner--tiny/blobs", ".locks"])
    def test_a_file_in_place_of_a_folder_inside(self, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inner: str):
        file = tmp_path / "cache" / inner
        file.parent.mkdir(parents=True)
        file.write_text("")
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        self.refused(hub, rf"cache {tmp_path / 'cache'}: a file is in the way \({file}\)")

    @pytest.mark.parametrize("cache", ["/proc/cache", "/dev/null", "/tmp/" + "x" * 400])
    def test_no_folder_can_be_there(self, hub: Hub, monkeypatch: pytest.MonkeyPatch, cache: str):
        monkeypatch.setenv("HF_HUB_CACHE", cache)
        self.refused(hub, f"kept in the cache {cache[:100]}")

    @pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
    @pytest.mark.parametrize("inner", [".", "models--owner--tiny", "models--owner--tiny/blobs"])
    def test_read_only(self, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, inner: str):
        """Root may write anywhere, so the refusal is the disk's."""
        folder = tmp_path / "cache" / inner
        folder.mkdir(parents=True)
        make = tempfile.TemporaryFile

        def refuse(dir: Path):
            if Path(dir) == folder:
                raise OSError(number, os.strerror(number), str(dir))
            return make(dir=dir)

        monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        self.refused(hub, f"{os.strerror(number)}.*Make it a folder that this user can write to, or point HF_HUB_CACHE")

    def test_a_read_only_cache_serves_what_is_in_it(self, hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
        folder = resolve(NAME)

        def refuse(dir: Path):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(dir))

        monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
        with caplog.at_level(logging.WARNING, logger="florence2"):
            assert resolve(NAME) == folder
        assert "Read-only file system" in caplog.text
        assert "Using the copy in the cache" in caplog.text

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
    @pytest.mark.parametrize("name", ["model.safetensors.*", "config.json"])
    def test_a_full_disk(self, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, name: str):
        def full(*arguments: object, **options: object):
            raise OSError(number, os.strerror(number))

        if name == "config.json":
            monkeypatch.setattr("huggingface_hub.hf_hub_download", full)
        else:
            monkeypatch.setattr(hub_module, "_append", full)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        match = rf"kept in the cache {tmp_path / 'cache'}: {os.strerror(number)}\. Free some space, or point HF_HUB_CACHE"
        with pytest.raises(DownloadError, match=match):
            resolve(NAME)

    def test_a_login_that_can_not_be_read(self, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        """As for a container's user whose HOME is root's."""
        token = tmp_path / "root" / "token"

        def refuse(*arguments: object, **options: object):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(token))

        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("huggingface_hub.HfApi.model_info", refuse)
        self.refused(hub, f"could not be fetched: {token}: Permission denied.*HF_TOKEN_PATH")

    def test_a_user_without_a_home(self, hub: Hub, monkeypatch: pytest.MonkeyPatch):
        from huggingface_hub import constants

        monkeypatch.delenv("HF_HOME")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", "~/.cache/huggingface/hub")
        monkeypatch.setenv("HOME", "~")
        self.refused(hub, "this user has no home folder")


def test_the_cache_serves_offline_and_when_the_hub_is_down(hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    folder = resolve(NAME)
    hub.asked.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolve(NAME) == folder
    assert hub.asked == []
    monkeypatch.delenv("HF_HUB_OFFLINE")
    hub.down = True
    with caplog.at_level(logging.WARNING, logger="florence2"):
        assert resolve(NAME) == folder
    assert "Using the copy in the cache" in caplog.text
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert resolve(NAME) == folder


def test_what_is_not_in_the_cache_says_so_offline(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE is set"):
        resolve(NAME)
    assert hub.asked == []


def test_an_incomplete_copy_does_not_count(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    folder = resolve(NAME)
    (folder / "model.safetensors").unlink()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DownloadError, match="not completely, in the cache"):
        resolve(NAME)


def test_a_missing_repository_and_a_missing_revision_are_told_apart(hub: Hub):
    with pytest.raises(ModelNotFound, match="no repository owner/absent"):
        fetch("owner/absent")
    with pytest.raises(ModelNotFound, match="no revision 'v9'"):
        fetch(NAME, "v9")


def test_private_and_gated_repositories_ask_for_a_token(hub: Hub, checkpoint: Path, monkeypatch: pytest.MonkeyPatch):
    hub.add("owner/private", checkpoint, token="secret")
    hub.add("owner/gated", checkpoint, gated=True)
    with pytest.raises(ModelNotFound, match="without a token"):
        fetch("owner/private")
    with pytest.raises(ModelNotFound, match="accept its terms"):
        fetch("owner/gated")
    monkeypatch.setenv("HF_TOKEN", "wrong")
    with pytest.raises(ModelNotFound, match="HF_TOKEN is valid") as refused:
        fetch("owner/private")
    assert "wrong" not in str(refused.value)
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert is_complete(fetch("owner/private"))
    served = [asked for asked in hub.asked if "private" in asked.path and asked.token != "wrong"]
    assert {asked.token for asked in served if "/resolve/" in asked.path} == {"secret"}
    # The token stays with the hub: the storage that large files come from never sees it.
    assert {asked.token for asked in served if asked.path.startswith("/files/")} == {None}


def test_an_unreachable_or_failing_hub_says_what_to_do(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    hub.down = True
    with pytest.raises(DownloadError, match="HTTP 503"):
        fetch(NAME)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DownloadError, match="Check the network"):
        fetch(NAME)
    monkeypatch.setenv("HF_ENDPOINT", "hub.example")
    with pytest.raises(DownloadError, match="HF_ENDPOINT to be an address"):
        fetch(NAME)


@pytest.mark.slow
@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "http://127.0.0.1:9", "socks://127.0.0.1:9"])
@pytest.mark.parametrize("name", ["ALL_PROXY", "HTTP_PROXY", "https_proxy"])
def test_a_hub_on_this_machine_is_reached_without_a_proxy(hub: Hub, monkeypatch: pytest.MonkeyPatch, name: str, proxy: str):
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.setenv(name, proxy)
    assert is_complete(fetch(NAME))


def test_a_proxy_in_between_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example")
    for name, proxy in (("ALL_PROXY", "socks5://user:secret@127.0.0.1:9"), ("HTTP_PROXY", "http://user:secret@127.0.0.1:9")):
        monkeypatch.setenv(name, proxy)
        shown = proxy.replace("user:secret@", "")
        with pytest.raises(DownloadError, match=rf"from http://hub\.example by the proxy {re.escape(shown)} \({name}\)") as caught:
            fetch(NAME)
        assert "secret" not in caught.value.message
        assert len(caught.value.message) < 500


def test_what_is_no_proxy_is_told_with_its_variable(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTPS_PROXY", "socks4://127.0.0.1:9")
    assert is_complete(fetch(NAME))  # this machine needs none
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example")
    with pytest.raises(DownloadError, match="HTTPS_PROXY is 'socks4:"):
        fetch("owner/other")


def test_a_repository_without_a_checkpoint_is_refused_by_its_files(hub: Hub, tmp_path: Path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.csv").write_text("a,b")
    hub.add("owner/data", tmp_path / "data")
    with pytest.raises(ModelNotFound, match=r"holds no checkpoint.*train\.csv"):
        fetch("owner/data")


@pytest.mark.slow
def test_a_fresh_process_needs_nothing_but_the_environment(hub: Hub, tmp_path: Path):
    code = f"from florence2.weights import resolve; print(resolve({NAME!r}))"
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(tmp_path / "elsewhere"),
        # Any attempt to go elsewhere than the stand-in would need this proxy.
        "HTTPS_PROXY": "http://127.0.0.1:9",
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=True)
    folder = Path(done.stdout.strip())
    assert folder.is_relative_to(tmp_path / "elsewhere")
    assert is_complete(folder)
    offline = {**environment, "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    again = subprocess.run([sys.executable, "-c", code], env=offline, capture_output=True, text=True, timeout=120, check=True)
    assert again.stdout == done.stdout


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_damaged_file_of_the_cache_is_fetched_once_more(hub: Hub, name: str):
    blob = (resolve(NAME) / name).resolve()
    whole = blob.read_bytes()
    blob.write_bytes(whole[: len(whole) // 2])
    before = len(hub.fetched())
    florence2.load(NAME, device="cpu").close()
    assert blob.read_bytes() == whole
    assert hub.fetched()[before:] == [name]


def test_a_damaged_file_that_can_t_be_fetched_is_told(hub: Hub):
    blob = (resolve(NAME) / "model.safetensors").resolve()
    blob.write_bytes(blob.read_bytes()[:-1000])
    hub.down = True
    with pytest.raises(DownloadError):
        florence2.load(NAME, device="cpu")


def test_what_the_hub_itself_has_wrong_is_no_damage(hub: Hub, tmp_path: Path, checkpoint: Path):
    shutil.copytree(checkpoint, tmp_path / "wrong")
    (tmp_path / "wrong" / "model.safetensors").write_bytes(b"no weights")
    hub.add("owner/wrong", tmp_path / "wrong")
    folder = resolve("owner/wrong")
    before = hub.fetched()
    with pytest.raises(CheckpointError):
        florence2.load("owner/wrong", device="cpu")
    assert hub.fetched() == before
    assert (folder / "model.safetensors").exists()


def test_a_folder_of_one_s_own_is_never_touched(tmp_path: Path, checkpoint: Path):
    folder = tmp_path / "models--mine" / "snapshots" / "copy"
    shutil.copytree(checkpoint, folder)
    (folder / "model.safetensors").write_bytes(b"half")
    with pytest.raises(CheckpointError):
        florence2.load(folder, device="cpu")
    assert (folder / "model.safetensors").read_bytes() == b"half"


@pytest.mark.parametrize("how", ["down", "offline"])
def test_a_part_in_the_cache_is_told_with_what_is_missing(hub: Hub, monkeypatch: pytest.MonkeyPatch, how: str):
    folder = resolve(NAME)
    (folder / "model.safetensors").unlink()
    (folder / "config.json").unlink()
    if how == "down":
        hub.down = True
    else:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DownloadError, match=rf"The cache has a part of it: {folder.name[:12]} lacks config.json, the weights\."):
        resolve(NAME)
