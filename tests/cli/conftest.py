"""The command line in process, with a tiny checkpoint and two pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixtures.checkpoints import write_checkpoint
from florence2.cli import main


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    paths = [tmp_path / "a" / "scene.png", tmp_path / "b" / "scene.jpg"]
    for seed, path in enumerate(paths):
        path.parent.mkdir()
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(path)
    return [str(path) for path in paths]


class Cli:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        out, err = self.capsys.readouterr()
        return int(left.value.code or 0), out, err


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(capsys)


@pytest.fixture
def infer(cli: Cli, folder: Path):
    def run(*arguments: object) -> tuple[int, str, str]:
        return cli("infer", "--model", folder, "--device", "cpu", "--max-new-tokens", 10, "--beams", 1, *arguments)

    return run


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a model would be loaded."""

    def loaded(*_: object, **__: object) -> None:
        raise AssertionError("a model is loaded")

    monkeypatch.setattr("florence2.engine.engine.load", loaded)
