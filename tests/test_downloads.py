"""A download that fails, in every command that may begin with one: one line that says what to do, and no traceback."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import sys
import termios
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest

from fixtures.checkpoints import write_checkpoint
from florence2.cli import main
from florence2.weights import hub as downloads
from tests.docs.markdown import ROOT
from tests.hub import Hub, running_hub

NAME = "owner/model"
SCENE = str(ROOT / "examples" / "scene.png")
DATA = "synthetic:1?seed=1000000&tasks=OD&words=0"
COMMANDS = {
    "pull": ["pull", NAME],
    "infer": ["infer", SCENE, "-p", "<OD>", "-m", NAME],
    "evaluate": ["evaluate", "-d", DATA, "-m", NAME],
    "train": ["train", "-d", "synthetic:2?tasks=OD&words=0", "-m", NAME, "-o", "run"],
    # In this process, in which the failures are made.
    "serve": ["serve", "--check", "-m", NAME, "--set", "engine_process=false"],
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def hub(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.chdir(tmp_path)
    proxies = [name for one in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY") for name in (one, one.lower())]
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HOME", *proxies):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(downloads, "RETRY_DELAY_S", 0.0)
    with running_hub() as served:
        served.add(NAME, checkpoint)
        monkeypatch.setenv("HF_ENDPOINT", served.address)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        yield served
    huggingface_hub.close_session()  # which keeps the proxies of this test


def unreachable(hub: Hub, patch: pytest.MonkeyPatch, _: Path) -> None:
    patch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")


def no_such_host(hub: Hub, patch: pytest.MonkeyPatch, _: Path) -> None:
    patch.setenv("HF_ENDPOINT", "https://hub.invalid")


def offline(hub: Hub, patch: pytest.MonkeyPatch, _: Path) -> None:
    patch.setenv("HF_HUB_OFFLINE", "1")


def wrong_proxy(hub: Hub, patch: pytest.MonkeyPatch, _: Path) -> None:
    patch.setenv("HF_ENDPOINT", "http://hub.invalid")
    patch.setenv("HTTP_PROXY", "http://127.0.0.1:9")


def no_proxy_at_all(hub: Hub, patch: pytest.MonkeyPatch, _: Path) -> None:
    patch.setenv("HF_ENDPOINT", "http://hub.invalid")
    patch.setenv("HTTP_PROXY", "ftp://proxy:21")


def no_address(hub: Hub, patch: pytest.MonkeyPatch, _: Path) -> None:
    patch.setenv("HF_ENDPOINT", "hub.example")


def down(hub: Hub, patch: pytest.MonkeyPatch, _: Path) -> None:
    hub.down = True


def unknown(hub: Hub, patch: pytest.MonkeyPatch, _: Path) -> None:
    hub.repositories.clear()


def gated(hub: Hub, patch: pytest.MonkeyPatch, _: Path) -> None:
    hub.repositories[NAME].gated = True


def wrong_token(hub: Hub, patch: pytest.MonkeyPatch, _: Path) -> None:
    hub.repositories[NAME].token = "right"
    patch.setenv("HF_TOKEN", "hf_wrong")


def no_checkpoint(hub: Hub, patch: pytest.MonkeyPatch, _: Path) -> None:
    hub.repositories[NAME].add("main", {"README.md": b"nothing"})


def breaks_off(hub: Hub, patch: pytest.MonkeyPatch, _: Path) -> None:
    hub.break_after["model.safetensors"] = 100


def damaged(hub: Hub, patch: pytest.MonkeyPatch, _: Path) -> None:
    hub.damaged.add("model.safetensors")


def full_disk(hub: Hub, patch: pytest.MonkeyPatch, _: Path) -> None:
    usage = namedtuple("usage", "total used free")
    patch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 500_000))


def disk_that_fills(hub: Hub, patch: pytest.MonkeyPatch, _: Path) -> None:
    def append(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    patch.setattr(downloads, "_append", append)


def file_in_the_way(hub: Hub, patch: pytest.MonkeyPatch, folder: Path) -> None:
    (folder / "cache").write_text("a file")


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (unreachable, "Check the network"),
        (no_such_host, "Check the network"),
        (offline, "HF_HUB_OFFLINE is set"),
        (wrong_proxy, "that proxy"),
        (no_proxy_at_all, "expected the address of a proxy"),
        (no_address, "Expected HF_ENDPOINT to be an address"),
        (down, "Try again later"),
        (unknown, "Check the spelling"),
        (gated, "accept its terms on its page"),
        (wrong_token, "Check that HF_TOKEN is valid"),
        (no_checkpoint, "holds no checkpoint"),
        (breaks_off, "Try again"),
        (damaged, "Try again"),
        (full_disk, "Free some space"),
        (disk_that_fills, "Free some space"),
        (file_in_the_way, "HF_HUB_CACHE"),
    ],
)
def test_a_failed_download_is_one_line(name, failure, told, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    failure(hub, monkeypatch, tmp_path)
    with pytest.raises(SystemExit) as left:
        main(["-q", *COMMANDS[name]])
    out, err = capsys.readouterr()
    assert left.value.code in (1, 2)
    assert "Traceback" not in out + err
    if name == "serve":  # the report says why, and one line that it is one
        assert err == "florence2: the check found 1 fault; the report says where\n"
        reason = next(line for line in out.splitlines() if line.startswith(f"{NAME} FAILED: "))
    else:
        assert out == ""
        (reason,) = err.splitlines()
        assert reason.startswith("florence2: ")
    assert told in reason
    assert len(reason) <= 600


def test_a_download_is_told_in_lines_where_nobody_watches_a_bar(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["pull", NAME])
    out, err = capsys.readouterr()
    assert not left.value.code
    assert Path(out.strip()).is_dir()
    (line,) = err.splitlines()
    assert line.startswith("florence2: fetching model.safetensors of owner/model")
    assert "%" not in err


def test_nothing_is_told_of_a_download_with_quiet(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["pull", NAME, "-q"])
    assert capsys.readouterr().err == ""


def test_an_address_set_to_nothing_is_the_public_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "")
    assert downloads._target(NAME, "main").endpoint == "https://huggingface.co"


@pytest.mark.slow
@pytest.mark.parametrize(("words", "term", "is_drawn"), [((), "xterm", True), (("-q",), "xterm", False), ((), "dumb", False)])
def test_bars_of_downloads_are_for_terminals(hub: Hub, words: tuple[str, ...], term: str, is_drawn: bool) -> None:
    ours, its = os.openpty()
    termios.tcsetwinsize(its, (24, 100))
    program = [sys.executable, "-c", "from florence2.cli import main; main()", "pull", NAME, *words]
    process = subprocess.Popen(program, env={**os.environ, "TERM": term}, stderr=its, stdout=subprocess.DEVNULL)
    os.close(its)
    seen = b""
    with contextlib.suppress(OSError):  # how a terminal ends
        while part := os.read(ours, 4096):
            seen += part
    os.close(ours)
    assert process.wait(60) == 0
    assert (b"100%" in seen) == is_drawn, seen
    assert (b"florence2: fetching" in seen) == (term == "dumb")
