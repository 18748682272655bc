"""A fine-tuning run: its step is the reference's, it learns, it goes on where it stopped, and it ends where it should."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from fixtures.checkpoints import reference_model, write_checkpoint
from florence2.datasets.reader import read_dataset
from florence2.datasets.splits import split
from florence2.errors import DatasetError, InvalidOption
from florence2.tasks.tokenizer import Tokenizer
from florence2.training import fine_tuner
from florence2.training.fine_tuner import FineTuner
from florence2.training.options import FineTuneData, FineTuneOptions
from florence2.training.preparation import with_room
from florence2.training.run_lock import refuse_beside_a_run
from florence2.weights import load_model, read_checkpoint
from florence2.weights.names import to_ours
from tests.training.sets import write_jsonl

FULL = FineTuneOptions(method="full", learning_rate=1e-3, batch_size=4, epochs=1, weight_decay=0.1)
LORA = FineTuneOptions(learning_rate=3e-3, batch_size=8, epochs=3, rank=4, patience=None)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    """Dark pictures are a cat on the left, bright ones a dog on the right."""
    folder = tmp_path_factory.mktemp("set")
    lines = []
    for number in range(24):
        is_dark = number % 2 == 0
        shade = 5 * number if is_dark else 255 - 4 * number
        Image.new("RGB", (64, 64), (shade, shade, shade)).save(folder / f"{number}.png")
        answer = "cat<loc_1><loc_2><loc_300><loc_400>" if is_dark else "dog<loc_500><loc_600><loc_700><loc_800>"
        lines.append({"image": f"{number}.png", "prompt": "<OD>", "answer": answer})
        lines.append({"image": f"{number}.png", "prompt": "<CAPTION>", "answer": "a cat" if is_dark else "a big bad dog"})
    return read_dataset(str(write_jsonl(folder / "set.jsonl", lines))).sound()


def tuner(base, folder, options, **more) -> FineTuner:
    checkpoint = read_checkpoint(base)
    return FineTuner(checkpoint, load_model(checkpoint), Tokenizer.load(base), options, folder, base=str(base), **more)


def weights(run: FineTuner) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in run.model.state_dict().items()}


def theirs(run, base, batch):
    """The reference, its loss and gradients on the same records as one padded batch, and its names as ours."""
    model = reference_model(base)
    collated = run.losses.collate(batch)
    pixels, (group,) = collated.read_pixels(), collated.supervised
    image_tokens = run.checkpoint.config.vision.num_image_tokens(64, 64)
    ids = torch.cat([torch.full((len(batch), image_tokens), model.config.image_token_id), group.prompt_ids], 1)
    mask = torch.ones_like(ids)
    for row, length in enumerate(group.prompt_lengths):
        mask[row, image_tokens + length :] = 0
    loss = model(input_ids=ids, attention_mask=mask, pixel_values=pixels[group.image_index], labels=group.labels).loss
    loss.backward()
    named = {to_ours(name): parameter for name, parameter in model.named_parameters()}
    return loss, named


def test_one_step_is_the_references(base, records, tmp_path, monkeypatch):
    monkeypatch.setattr("florence2.training.collation.MAX_GROUPS", 1)
    run = tuner(base, tmp_path, FULL)
    batch = records[:6]  # prompts and answers of different lengths
    loss, named = theirs(run, base, batch)
    optimiser = torch.optim.AdamW(
        [
            {"params": [value for name, value in named.items() if _decays(run, name)], "weight_decay": FULL.weight_decay},
            {"params": [value for name, value in named.items() if not _decays(run, name)], "weight_decay": 0.0},
        ],
        lr=1e-3,
    )
    torch.nn.utils.clip_grad_norm_(named.values(), FULL.max_gradient_norm)
    gradients = {name: value.grad.clone() for name, value in named.items() if value.grad is not None}
    optimiser.step()
    assert run.step([batch], 1e-3) == pytest.approx(loss.item(), rel=1e-5)
    compared = 0
    for name, parameter in run.model.named_parameters():
        # Adam makes a full step of the smallest gradient: where it is nothing but rounding, its sign is chance.
        is_sure = gradients[name].abs() > 1e-6
        compared += int(is_sure.sum())
        torch.testing.assert_close(parameter[is_sure], named[name][is_sure], rtol=1e-4, atol=2e-6)
    assert compared > 0.6 * sum(parameter.numel() for parameter in run.model.parameters() if parameter.ndim > 1)


def _decays(run, name):
    learning = {id(p) for p in run.optimiser.param_groups[0]["params"]}
    return any(name == own and id(p) in learning for own, p in run.model.named_parameters())


def gradients_of(run: FineTuner, batches) -> dict[str, torch.Tensor]:
    """The gradients of a step that is not taken."""
    run.optimiser.step = run.optimiser.zero_grad = lambda *_, **__: None  # type: ignore[method-assign]
    run.step(batches, 1e-3)
    return {name: parameter.grad.clone() for name, parameter in run.model.named_parameters() if parameter.grad is not None}


def test_groups_and_accumulation_do_not_change_a_step(base, records, tmp_path):
    batch = records[:8]
    whole = gradients_of(tuner(base, tmp_path / "a", FULL), [batch])
    parts = gradients_of(tuner(base, tmp_path / "b", FULL), [batch[:2], batch[2:5], batch[5:]])
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_gradient_checkpointing_changes_nothing(base, records, tmp_path, method):
    options = dataclasses.replace(FULL, method=method)
    plain = tuner(base, tmp_path / "a", options)
    spared = tuner(base, tmp_path / "b", dataclasses.replace(options, gradient_checkpointing=True))
    calls: dict[FineTuner, list[bool]] = {plain: [], spared: []}
    for run, found in calls.items():
        layer: Any = run.model.language_model.encoder.layers[0]
        layer.fc1.register_forward_pre_hook(lambda *_, found=found: found.append(torch.is_grad_enabled()))
    batch = [*records[:4], *rehearsed(records[4:6])]
    losses = [(plain.step([batch], 1e-3), spared.step([batch], 1e-3)) for _ in range(2)]
    assert calls[spared].count(True) == 2 * calls[plain].count(True) > 0
    assert calls[spared].count(False) == calls[plain].count(False)
    for one, other in losses:
        assert one == pytest.approx(other, rel=1e-6)


@pytest.mark.slow
def test_it_learns_and_saves_what_is_best(base, records, tmp_path):
    learnt, held_out = split(records, 0.25, seed=1)
    reported = []
    outcome = tuner(base, tmp_path, dataclasses.replace(LORA, epochs=12)).run(learnt, held_out, on_step=reported.append)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    validation = [line["validation"] for line in log if "validation" in line]
    assert len(validation) == 12
    assert outcome.best == pytest.approx(min(validation), abs=1e-5)
    assert validation[-1] < 0.5 * validation[0]
    assert reported[-1].number == reported[-1].total == outcome.steps == 12 * 5
    assert "polyline" in (tmp_path / "loss.svg").read_text()
    assert outcome.folders == (tmp_path / "adapter",)
    # The saved adapter has the loss that was measured.
    checkpoint = read_checkpoint(tmp_path / "adapter")
    again = FineTuner(checkpoint, load_model(checkpoint), Tokenizer.load(base), LORA, tmp_path / "again", base="x")
    assert again.validate(held_out) == pytest.approx(outcome.best, rel=1e-4)


@pytest.mark.slow
def test_a_run_that_is_cut_off_goes_on_as_if_it_had_not_been(base, records, tmp_path):
    whole = tuner(base, tmp_path / "whole", LORA)
    whole.run(records[:24], records[24:30])

    class Cut(Exception):
        pass

    def cut(step):
        if step.number == 5:
            assert last_saved() == 4  # every so often, here after each step: all that a kill would leave
            raise Cut

    def last_saved() -> int:
        return torch.load(tmp_path / "cut" / "state.pt", weights_only=True)["at"]["step"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fine_tuner, "SAVE_EVERY_S", 0.0)
        with pytest.raises(Cut):
            tuner(base, tmp_path / "cut", LORA).run(records[:24], records[24:30], on_step=cut)
    assert last_saved() == 5
    with pytest.raises(InvalidOption, match="go on with resume=True"):
        tuner(base, tmp_path / "cut", LORA)
    with pytest.raises(InvalidOption, match="rank was 4"):
        tuner(base, tmp_path / "cut", dataclasses.replace(LORA, rank=8), resume=True)
    with pytest.raises(DatasetError, match="these are others"):
        tuner(base, tmp_path / "cut", LORA, resume=True).run(records[1:25], [])
    with pytest.raises(DatasetError, match="these are others"):
        tuner(base, tmp_path / "cut", LORA, resume=True).run([*records[:23], *rehearsed(records[23:24])], records[24:30])
    second = tuner(base, tmp_path / "cut", LORA, resume=True)
    outcome = second.run(records[:24], records[24:30])
    assert outcome.steps == 9
    for name, value in weights(whole).items():
        assert torch.equal(weights(second)[name], value), name
    logs = [[json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()] for name in ("whole", "cut")]
    assert logs[0] == logs[1]


def test_a_state_of_an_earlier_version_is_gone_on_with(base, records, tmp_path):
    """A state by its names on disk, which every version reads and writes."""
    begun = tuner(base, tmp_path / "begun", LORA)
    begun.run(records[:8], records[24:30])
    written = torch.load(tmp_path / "begun" / "state.pt", weights_only=True)
    at = written["at"]
    options = {
        "method": "lora",
        "freeze_vision": False,
        "rank": 4,
        "alpha": 32.0,
        "epochs": 3,
        "batch_size": 8,
        "accumulate": 1,
        "learning_rate": 3e-3,
        "warmup": 0.05,
        "weight_decay": 0.01,
        "max_gradient_norm": 1.0,
        "is_mixed": False,
        "checkpoint_activations": True,
        "patience": 3,
        "seed": 0,
    }
    state = {
        "learning": {name: parameter.detach() for name, parameter in begun.model.named_parameters() if parameter.requires_grad},
        "optimiser": begun.optimiser.state_dict(),
        "at": {"step": 3, "epoch": 3, "batch": 0, "best": 0.5, "best_epoch": 2, "seconds": 60.0}
        | {"learnt": at["learnt"], "held_out": at["held_out"]},
        "options": options,
        "base": str(base),
    }
    assert (written.keys(), at.keys(), written["options"].keys()) == (state.keys(), state["at"].keys(), options.keys())
    (tmp_path / "earlier").mkdir()
    torch.save(state, tmp_path / "earlier" / "state.pt")
    outcome = tuner(base, tmp_path / "earlier", dataclasses.replace(LORA, epochs=4), resume=True).run(records[:8], records[24:30])
    assert outcome.steps == 4
    assert outcome.seconds > 60
    with pytest.raises(InvalidOption, match="is_mixed was False"):
        tuner(base, tmp_path / "earlier", LORA, is_mixed=True, resume=True)


def rehearsed(records):
    return [dataclasses.replace(record, is_rehearsed=True) for record in records]


@pytest.mark.slow
@pytest.mark.parametrize("options", [FULL, LORA, dataclasses.replace(LORA, freeze_vision=True)])
def test_what_is_rehearsed_pulls_back_to_where_the_model_was(base, records, tmp_path, options):
    run = tuner(base, tmp_path, options)
    kept = run.losses.collate(rehearsed(records[:4]))
    assert not kept.supervised
    start = run.losses.total(kept)
    start.backward()
    assert start.item() == pytest.approx(0.0, abs=1e-4)
    assert max(p.grad.abs().max() for p in run.model.parameters() if p.grad is not None) < 1e-4
    run.optimiser.zero_grad()
    for _ in range(3):
        run.step([records[8:16]], 3e-3)
    moved = run.losses.total(kept).item()
    assert moved > 1e-2
    for _ in range(6):
        run.step([rehearsed(records[:4])], 3e-4)
    assert run.losses.total(kept).item() < 0.7 * moved


def test_a_batch_learns_some_records_and_keeps_others(base, records, tmp_path):
    """Both losses at once, as two models and torch's own functions have them."""
    run = tuner(base, tmp_path, FULL)
    run.step([records[8:16]], 3e-3)
    batch = [records[0], *rehearsed(records[1:3]), records[5], *rehearsed(records[5:6])]
    expected = 0.0
    before = load_model(read_checkpoint(base))
    for record in batch:
        collated = run.losses.collate([record])
        (group,) = collated.supervised + collated.distilled
        pictures = collated.read_pixels()
        now, was = (
            model(model.multi_modal_projector(model.vision_tower(pictures)), group.prompt_ids, group.prompt_lengths, group.decoder_ids)[0]
            for model in (run.model, before)
        )
        if record.is_rehearsed:
            apart = torch.distributions.kl_divergence(
                torch.distributions.Categorical(logits=was), torch.distributions.Categorical(logits=now)
            )
            expected += apart.sum().item()
        else:
            expected += torch.nn.functional.cross_entropy(now, group.labels[0], reduction="sum").item()
    collated = run.losses.collate(batch)
    assert len(collated.read_pixels()) == 3
    assert run.losses.total(collated).item() == pytest.approx(expected, rel=1e-4)
    assert collated.num_tokens == sum(len(run.tokenizer.encode(record.answers[0])) for record in batch)


@pytest.mark.slow
def test_rehearsing_forgets_less(base, records, tmp_path):
    """A new answer to one prompt is learnt; what happens to the answers to another one, with and without rehearsing them."""
    captions, detections = ([record for record in records if record.tag == tag] for tag in ("<CAPTION>", "<OD>"))
    drift = []
    for name, kept in (("with", rehearsed(detections[:8])), ("without", [])):
        run = tuner(base, tmp_path / name, LORA)
        run.run([*captions[:8], *kept], [])
        drift.append(run.losses.total(run.losses.collate(rehearsed(detections[8:]))).item())
    assert drift[0] < 0.5 * drift[1]


def test_nothing_to_resume_is_said(base, tmp_path):
    with pytest.raises(InvalidOption, match="nothing to go on with"):
        tuner(base, tmp_path, LORA, resume=True)


def test_patience_ends_a_run_that_no_longer_gets_better(base, records, tmp_path, monkeypatch):
    losses = iter([3.0, 2.0, 2.5, 2.1, 1.0])
    monkeypatch.setattr(FineTuner, "validate", lambda self, records: next(losses))
    outcome = tuner(base, tmp_path, dataclasses.replace(LORA, epochs=5, patience=2)).run(records[:8], records[8:10])
    assert (outcome.best, outcome.best_epoch, outcome.stopped_early) == (2.0, 2, True)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_frozen_tower_stays_as_it_is(base, records, tmp_path, method):
    run = tuner(base, tmp_path, dataclasses.replace(FULL, method=method, freeze_vision=True))
    before = weights(run)
    run.step([records[:4]], 1e-3)
    changed = {name.split(".")[0] for name, value in weights(run).items() if not torch.equal(value, before[name])}
    assert "vision_tower" not in changed
    assert "language_model" in changed


def test_bfloat16_products_learn_nearly_the_same(base, records, tmp_path):
    exact = tuner(base, tmp_path / "a", FULL).step([records[:4]], 1e-3)
    mixed = tuner(base, tmp_path / "b", FULL, is_mixed=True)
    loss = mixed.step([records[:4]], 1e-3)
    assert loss == pytest.approx(exact, rel=0.05)
    assert loss != pytest.approx(exact, rel=1e-6)
    assert all(parameter.dtype == torch.float32 for parameter in mixed.model.parameters())


def test_records_without_room_are_told(base, records):
    long = dataclasses.replace(records[0], answers=("cat" * 200,), where="set:9")
    wordy = dataclasses.replace(records[0], prompt="why " * 200, where="set:10")
    data = with_room([records[0], long, wordy], read_checkpoint(base), Tokenizer.load(base), "set")
    assert data.records == [records[0]]
    assert [str(problem).split(" has")[0] for problem in data.problems] == ["set:9: the answer", "set:10: the prompt"]
    with pytest.raises(DatasetError):
        data.sound()


def test_a_split_is_by_picture(records):
    learnt, held_out = split(records, 0.25, seed=0)
    assert len(held_out) == 12
    assert not {record.picture for record in learnt} & {record.picture for record in held_out}
    assert split(records, 0.25, seed=0) == (learnt, held_out)
    assert split(records, 0.0, seed=0) == (records, [])
    with pytest.raises(InvalidOption, match="too few"):
        split(records[:2], 0.5, seed=0)
    with pytest.raises(InvalidOption, match="share"):
        split(records, 1.0, seed=0)


@pytest.mark.parametrize("change", [{"rank": 0}, {"epochs": 0}, {"alpha": 0}, {"method": "half"}, {"learning_rate": -1}, {"warmup": 1}])
def test_options_that_can_not_be_are_refused(change):
    with pytest.raises(InvalidOption, match=next(iter(change))):
        FineTuneOptions(**change)


@pytest.mark.parametrize(
    "change",
    [{"epochs": 1.5}, {"epochs": "3"}, {"seed": -1}, {"seed": "a"}, {"patience": -1}, {"alpha": float("inf")}, {"learning_rate": "x"}],
)
def test_options_of_a_wrong_type_are_refused(change):
    with pytest.raises(InvalidOption, match=next(iter(change))):
        FineTuneOptions(**change)


def test_no_patience_is_endless_patience():
    assert FineTuneOptions(patience=0).patience is None


def test_data_sets_may_be_paths_and_one_name_is_one_data_set():
    data: Any = FineTuneData(train="cats.jsonl", rehearse=[Path("dogs.jsonl")], validation=Path("v.jsonl"), images="pictures")  # type: ignore[arg-type]
    assert (data.train, data.rehearse, data.validation) == (("cats.jsonl",), ("dogs.jsonl",), "v.jsonl")
    assert data.images == Path("pictures")
    refused: list[dict[str, Any]] = [{"train": ()}, {"train": "a.jsonl", "limit": 0}]
    for wrong in refused:
        with pytest.raises(InvalidOption, match=list(wrong)[-1]):
            FineTuneData(**wrong)


@pytest.mark.slow
def test_a_second_run_in_the_same_folder_at_the_same_time_is_refused(base, records, tmp_path):
    first = tuner(base, tmp_path / "run", LORA)
    told = r"another run is training in .*run: wait for its end, or give another folder"
    for refused in (lambda: tuner(base, tmp_path / "run", LORA), lambda: refuse_beside_a_run(tmp_path / "run")):
        with pytest.raises(InvalidOption, match=told):
            refused()
    refuse_beside_a_run(tmp_path / "other")
    first.run(records[:8], [])
    with pytest.raises(InvalidOption, match="holds a run already"):
        tuner(base, tmp_path / "run", LORA)
    tuner(base, tmp_path / "run", LORA, resume=True)
