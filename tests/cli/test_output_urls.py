"""A URL that is given as an output folder is refused by every command, and none makes a folder that is named ``s3:``."""

from __future__ import annotations

from pathlib import Path

import pytest

from florence2.cluster.labelling import label_on_ray
from florence2.errors import InvalidOption
from florence2.labelling import LabelOptions, label
from florence2.tasks.tokenizer import Tokenizer
from florence2.weights import save_native
from tests.cli.conftest import Cli

URLS = ("s3://bucket/run", "gs://bucket/run")
COMMANDS = (
    (("label", "IMAGE", "--task", "od", "--output"), "--output", "or with --ray one of an object store, such as s3://bucket/run"),
    (("train", "--model", "gone", "--data", "gone.jsonl", "--output"), "--output", ""),
    (("train", "--model", "gone", "--data", "gone.jsonl", "--resume", "--output"), "--output", ""),
    (("evaluate", "--data", "gone.jsonl", "--output"), "--output", ""),
    (("infer", "IMAGE", "--prompt", "<OD>", "--draw"), "--draw", ""),
    (("bench", "serve", "http://127.0.0.1:9", "--rate", "1", "--json"), "--json", ""),
    (("bench", "serve", "http://127.0.0.1:9", "--rate", "1", "--plot"), "--plot", ""),
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize(("words", "option", "otherwise"), COMMANDS, ids=[" ".join(words[::4]) for words, *_ in COMMANDS])
def test_every_command_refuses_it(
    cli: Cli, images: list[str], place: Path, words: tuple[str, ...], option: str, otherwise: str, url: str
) -> None:
    given = url + ("/a.png" if option in ("--json", "--plot") else "")
    code, out, err = cli(*(images[0] if word == "IMAGE" else word for word in words), given)
    assert (code, out) == (2, "")
    assert f"{option} must be a folder of this machine, such as /data/out" in err
    assert f"got the URL {url}" in err
    assert otherwise in err
    assert not list(place.iterdir())


def test_so_do_functions_of_the_library(images: list[str], place: Path, folder: Path) -> None:
    options = LabelOptions(tasks=("od",))
    for url in (*URLS, *map(Path, URLS), "file:///data/run"):
        with pytest.raises(InvalidOption, match="with --ray"):
            label(images, url, options)
        with pytest.raises(InvalidOption, match="got the URL"):
            Tokenizer.load(folder).save(url)
        with pytest.raises(InvalidOption, match="got the URL"):
            save_native(None, url)  # type: ignore[arg-type]
    for url in (*map(Path, URLS), "file:///data/run"):  # a text with the URL of a store is what it takes
        with pytest.raises(InvalidOption, match="object store as text"):
            label_on_ray(images, url, options)
    assert not list(place.iterdir())
