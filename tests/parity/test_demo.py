"""The checkpoint that ships with the package: the reference loads the folder and answers with the same tokens."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Florence2ForConditionalGeneration, Florence2Processor

import florence2
from florence2.scenes.scene import draw_scene
from florence2.scenes.targets import make_targets
from florence2.scenes.world import WORLD
from florence2.tasks import TASKS

FOLDER = Path(florence2.__file__).parent / "demo"
NUM_SCENES = 2


@pytest.fixture(scope="module")
def reference():
    model = Florence2ForConditionalGeneration.from_pretrained(FOLDER, dtype=torch.float32).eval()
    return model, Florence2Processor.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def engine():
    with florence2.load("florence-2-demo", device="cpu", precision="fp32") as engine:
        yield engine


def questions() -> dict[str, str]:
    """One prompt for each of the fifteen tasks about the first scene."""
    scene = draw_scene(np.random.default_rng([1_000_001, 0]), options=WORLD)
    targets = make_targets(scene, np.random.default_rng(1))
    return {tag: targets[tag][0].prompt if targets[tag] else f"{tag}<loc_100><loc_100><loc_500><loc_500>" for tag in TASKS}


@pytest.mark.slow
@pytest.mark.parametrize("tag", TASKS)
@torch.inference_mode()
def test_tokens_and_answers_are_the_references(engine, reference, tag):
    model, processor = reference
    for number in range(NUM_SCENES):
        # Larger than the model's input, so that resizing takes part.
        image = draw_scene(np.random.default_rng([1_000_001, number]), size=300, options=WORLD).image
        prompt = questions()[tag]
        inputs = processor(images=image, text=prompt, return_tensors="pt")
        theirs = model.generate(**inputs, max_new_tokens=64)[0].tolist()[1:]
        ours = engine.run(image, prompt, max_new_tokens=64)
        assert ours.token_ids == [token for token in theirs if token != 1]
        text = processor.batch_decode([theirs], skip_special_tokens=False)[0]
        assert ours.to_dict() == processor.post_process_generation(text, task=tag, image_size=image.size)


def test_it_is_as_small_as_promised():
    model = florence2.weights.load_model(florence2.weights.read_checkpoint(FOLDER))
    assert sum(parameter.numel() for parameter in model.parameters()) <= 12_000_000
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 25_000_000


def test_it_has_every_file_of_a_native_folder_and_a_card():
    names = {path.name for path in FOLDER.iterdir()}
    assert names >= {"config.json", "generation_config.json", "processor_config.json", "tokenizer.json", "model.safetensors", "README.md"}
    assert json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))["model_type"] == "florence2"
