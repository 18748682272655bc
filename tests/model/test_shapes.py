"""The shapes that annotations promise, checked while the model runs.

An installed engine has no jaxtyping: its names are imported for type checkers alone. Here the modules are imported again where these names
are known, with each annotation checked by beartype.
"""

from __future__ import annotations

import builtins
import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError, install_import_hook

import florence2.engine.preprocess
import florence2.model
import florence2.weights.untied
from florence2.weights.defaults import ImageSettings

MODEL = ["florence2.model", *(f"florence2.model.{room.name}" for room in pkgutil.iter_modules(florence2.model.__path__))]
_NAMES: Any = jaxtyping  # for type checkers its names are no classes
DTYPES = [name for name in dir(_NAMES) if type(getattr(_NAMES, name)) is type(_NAMES.Float)]


@contextmanager
def checked(*names: str) -> Iterator[ModuleType]:
    """The first of the modules, all of them with their shapes checked; afterwards they are as before."""
    saved = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    in_packages = {name: getattr(sys.modules[name.rpartition(".")[0]], name.rpartition(".")[2], None) for name in names[:1]}
    try:
        with pytest.MonkeyPatch.context() as patch, install_import_hook(names[0], "beartype.beartype"):
            for name in DTYPES:
                patch.setattr(builtins, name, getattr(jaxtyping, name), raising=False)
            yield importlib.import_module(names[0])
    finally:
        for name in names:
            sys.modules.pop(name, None)
        sys.modules.update(saved)
        for name, value in in_packages.items():
            setattr(sys.modules[name.rpartition(".")[0]], name.rpartition(".")[2], value)


def tiny(module: ModuleType) -> florence2.model.Florence2:
    vision = module.VisionConfig(
        embed_dim=(8, 16), depths=(1, 1), num_heads=(1, 2), num_groups=(1, 2), patch_size=(7, 3), patch_stride=(4, 2),
        patch_padding=(3, 1), patch_prenorm=(False, True), window_size=4, projection_dim=16,
    )  # fmt: skip
    text = module.TextConfig(
        vocab_size=50, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=64,
    )  # fmt: skip
    return module.Florence2(module.Florence2Config(vision, text))


def test_every_annotated_shape_holds() -> None:
    with checked(*MODEL) as module, torch.no_grad():
        model = tiny(module)
        features = model.encode_image(torch.randn(2, 3, 40, 32))
        prompts = torch.tensor([[0, 5, 6, 2], [0, 5, 2, 1]])
        encoded = model.encode_prompt(features, prompts, [4, 3])
        cache = model.new_cache(4)
        model.admit(cache, encoded, [1, 3])
        assert model.decode_step(torch.tensor([2, 2, 2, 2]), cache).shape == (4, 50)
        assert model(features, prompts, [4, 3], prompts).shape == (2, 4, 50)


@pytest.mark.parametrize(
    "images",
    [torch.zeros(2, 4, 40, 32), torch.zeros(3, 40, 32), torch.zeros(2, 3, 40, 32, dtype=torch.int64)],
    ids=["four channels", "no batch", "integers"],
)
def test_a_wrong_shape_is_found(images: torch.Tensor) -> None:
    with checked(*MODEL) as module, torch.no_grad(), pytest.raises(TypeCheckError, match="images 3 height width"):
        tiny(module).encode_image(images)


def test_sizes_of_one_name_are_compared() -> None:
    with checked("florence2.model.linear") as module, torch.no_grad():
        layer = module.Linear(4, 6)
        assert layer(torch.zeros(2, 4), add_to=torch.zeros(2, 6)).shape == (2, 6)
        with pytest.raises(TypeCheckError, match=r"\*batch outputs"):
            layer(torch.zeros(2, 4), add_to=torch.zeros(3, 6))


def test_pixels_have_their_shape() -> None:
    settings = ImageSettings()
    with checked("florence2.engine.preprocess") as module:
        shape = module.normalise(np.zeros((settings.height, settings.width, 3), np.uint8), settings).shape
    assert shape == (3, settings.height, settings.width)


@pytest.mark.slow
def test_an_engine_runs_without_jaxtyping() -> None:
    script = """
import sys
sys.modules.update(jaxtyping=None, beartype=None)
import florence2
with florence2.load("florence-2-demo", device="cpu") as engine:
    print(engine.run("examples/scene.png", "<OD>", max_new_tokens=4).task)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=200)
    assert (ran.stdout.strip(), ran.returncode) == ("<OD>", 0), ran.stderr
