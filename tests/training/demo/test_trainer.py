"""The loop: it learns, it resumes where it stopped, and its loss is what it says."""

from __future__ import annotations

import dataclasses
import itertools
import json

import pytest
import torch

from florence2.model import Florence2, Florence2Config, TextConfig, VisionConfig
from florence2.training.collation import Group
from florence2.training.demo.batches import Batch
from florence2.training.demo.initialisation import initialise
from florence2.training.demo.trainer import Trainer, TrainingOptions

FIRST_LOCATION = 40
VOCABULARY = 1050


def tiny_model() -> Florence2:
    vision = VisionConfig(
        embed_dim=(8, 16),
        depths=(1, 1),
        num_heads=(1, 2),
        num_groups=(1, 2),
        patch_size=(7, 3),
        patch_stride=(4, 2),
        patch_padding=(3, 1),
        patch_prenorm=(False, True),
        window_size=4,
        projection_dim=16,
    )
    text = TextConfig(
        vocab_size=VOCABULARY,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=64,
    )
    model = Florence2(Florence2Config(vision, text))
    initialise(model, FIRST_LOCATION, seed=0)
    return model


def batch(number: int) -> Batch:
    """Dark pictures are a 5 at bin 100, bright ones a 6 at bin 900."""
    generator = torch.Generator().manual_seed(number)
    is_bright = torch.rand(8, generator=generator) < 0.5
    noise = torch.rand(8, 3, 32, 32, generator=generator) * 40
    pixels = (noise + torch.where(is_bright, 200.0, 10.0).view(-1, 1, 1, 1)).to(torch.uint8)
    labels = torch.tensor([[0, 6, FIRST_LOCATION + 900, 2] if bright else [0, 5, FIRST_LOCATION + 100, 2] for bright in is_bright.tolist()])
    decoder_ids = torch.cat([torch.full((8, 1), 2), labels[:, :-1]], dim=1)
    group = Group(("<OD>",) * 8, torch.arange(8), torch.tensor([[0, 7, 2]] * 8), (3,) * 8, decoder_ids, labels)
    return Batch(pixels, (group,), torch.zeros(8, 4, 4, 4, dtype=torch.uint8))


def batches(first: int):
    while True:
        yield batch(first)
        first += 1


def options(num_images: int, **changes) -> TrainingOptions:
    defaults = TrainingOptions(num_images, FIRST_LOCATION, learning_rate=5e-3, location_spread=0.5, log_every=5, save_every_s=1e9)
    return dataclasses.replace(defaults, **changes)


@pytest.mark.slow
def test_it_learns_and_logs_its_curve(tmp_path):
    torch.manual_seed(0)
    trainer = Trainer(tiny_model(), options(8 * 120, average_decay=0.9), tmp_path)
    trainer.run(batches(0))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(5, 121, 5))
    assert set(lines[0]["losses"]) == {"<OD>"}
    assert lines[-1]["loss"] < lines[0]["loss"] / 2
    trainer.model.load_state_dict(trainer.average)
    seen = batch(10_001)
    pixels = trainer.normalised(seen.pixels)
    with torch.no_grad():
        logits = trainer.model(trainer.model.encode_image(pixels), seen.groups[0].prompt_ids, [3] * 8, seen.groups[0].decoder_ids)
    assert torch.equal(logits[:, 1].argmax(-1), seen.groups[0].labels[:, 1])


@pytest.mark.slow
def test_a_resumed_run_is_the_run_that_was_never_stopped(tmp_path):
    whole = Trainer(tiny_model(), options(8 * 12), tmp_path / "whole")
    whole.run(batches(0))
    halves = Trainer(tiny_model(), options(8 * 12), tmp_path / "halves")
    halves.run(itertools.islice(batches(0), 5))
    resumed = Trainer(tiny_model(), options(8 * 12), tmp_path / "halves")
    assert (resumed.progress.step, resumed.progress.images_seen) == (5, 40)
    resumed.run(batches(resumed.progress.step))
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], value, rtol=0, atol=0)
        torch.testing.assert_close(resumed.average[name], whole.average[name], rtol=0, atol=0)


def test_a_kill_while_saving_leaves_the_old_state(tmp_path, monkeypatch):
    trainer = Trainer(tiny_model(), options(80), tmp_path)
    trainer.loop.save_state()

    def broken(state, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(KeyboardInterrupt):
        trainer.loop.save_state()
    monkeypatch.undo()
    assert Trainer(tiny_model(), options(80), tmp_path).progress.step == 0
