"""An engine with a tiny random checkpoint, an image, and a scheduler with a scripted model, for the tests of this room."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import florence2
from fixtures.checkpoints import write_checkpoint
from florence2.engine.engine import Engine
from florence2.engine.scheduler import Scheduler
from tests.engine.fakes import ScriptedModel

PATIENCE_S = 20.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[Engine]:
    with florence2.load(folder, device="cpu", precision="fp32") as engine:
        yield engine


@pytest.fixture(scope="module")
def image() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8))


@pytest.fixture
def model() -> ScriptedModel:
    return ScriptedModel()


@pytest.fixture
def scheduler(model: ScriptedModel) -> Iterator[Scheduler]:
    scheduler = Scheduler(model)
    yield scheduler
    model.hold.set()
    scheduler.close(cancel=True, timeout_s=PATIENCE_S)
