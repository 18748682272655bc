"""Image settings, generation defaults and dropped phrases, where possible against the reference's own reading."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from transformers import Florence2ForConditionalGeneration
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from fixtures.checkpoints import edit_json, write_checkpoint, write_json
from florence2.errors import CheckpointError
from florence2.weights.checkpoint import read_checkpoint
from florence2.weights.defaults import GenerationDefaults, ImageSettings
from florence2.weights.grounding import ORIGINAL_BANNED_PHRASES


@pytest.fixture
def native(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path, tokenizer=False)


@pytest.fixture
def original(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path, layout="original", tokenizer=False)


PUBLISHED = GenerationDefaults()


@pytest.mark.parametrize("layout", ["native", "original"])
def test_published_settings_are_read(tmp_path: Path, layout: Any):
    checkpoint = read_checkpoint(write_checkpoint(tmp_path, layout=layout, tokenizer=False))
    assert checkpoint.image == ImageSettings(width=64, height=64)
    assert checkpoint.generation == PUBLISHED
    assert checkpoint.banned_phrases == ORIGINAL_BANNED_PHRASES
    assert checkpoint.adapters == ()


class TestGeneration:
    def check_reference(self, folder: Path) -> GenerationDefaults:
        """Our reading, after comparing it with the reference's. What the reference leaves open it fills when it generates."""
        ours = read_checkpoint(folder).generation
        theirs = Florence2ForConditionalGeneration.from_pretrained(folder).generation_config
        assert theirs is not None
        assert ours.num_beams == (theirs.num_beams or 1)
        assert ours.no_repeat_ngram_size == (theirs.no_repeat_ngram_size or 0)
        assert ours.early_stopping == (theirs.early_stopping or False)
        assert ours.length_penalty == (theirs.length_penalty if theirs.length_penalty is not None else 1.0)
        assert ours.forced_bos_token_id == theirs.forced_bos_token_id
        assert ours.forced_eos_token_id == theirs.forced_eos_token_id
        limit = theirs.max_new_tokens or (theirs.max_length - 1 if theirs.max_length else None)
        assert ours.max_new_tokens == limit
        return ours

    def test_generation_config_stands_alone_in_native_checkpoints(self, native: Path):
        edit_json(native / "config.json", text_config__num_beams=5, num_beams=6)
        write_json(native / "generation_config.json", {"no_repeat_ngram_size": 2, "length_penalty": 0.5, "max_length": 30})
        ours = self.check_reference(native)
        assert (ours.num_beams, ours.no_repeat_ngram_size, ours.max_new_tokens) == (1, 2, 29)
        assert (ours.decoder_start_token_id, ours.eos_token_id) == (2, 2)

    def test_without_generation_config_the_model_config_speaks(self, native: Path):
        (native / "generation_config.json").unlink()
        ours = self.check_reference(native)
        assert (ours.num_beams, ours.forced_bos_token_id, ours.forced_eos_token_id) == (1, None, None)
        edit_json(native / "config.json", text_config__num_beams=3, text_config__early_stopping=True, text_config__forced_bos_token_id=0)
        ours = self.check_reference(native)
        assert (ours.num_beams, ours.early_stopping, ours.forced_bos_token_id) == (3, True, 0)
        edit_json(native / "config.json", num_beams=4)
        assert self.check_reference(native).num_beams == 4

    def test_max_new_tokens_wins_over_max_length(self, native: Path):
        edit_json(native / "generation_config.json", max_new_tokens=77, max_length=30)
        assert self.check_reference(native).max_new_tokens == 77

    def test_originals_take_from_text_config_what_generation_config_leaves_out(self, original: Path):
        write_json(original / "generation_config.json", {"num_beams": 2, "no_repeat_ngram_size": 0})
        ours = read_checkpoint(original).generation
        assert (ours.num_beams, ours.no_repeat_ngram_size, ours.early_stopping, ours.forced_bos_token_id) == (2, 0, True, 0)

    def test_the_20_that_nobody_meant_is_no_limit(self, original: Path):
        assert read_checkpoint(original).generation.max_new_tokens is None
        edit_json(original / "config.json", text_config__max_length=1024)
        assert read_checkpoint(original).generation.max_new_tokens == 1023

    def test_an_original_without_any_defaults_is_greedy(self, original: Path):
        keys = ("num_beams", "no_repeat_ngram_size", "early_stopping", "forced_bos_token_id", "forced_eos_token_id")
        edit_json(original / "config.json", **dict.fromkeys(f"text_config__{key}" for key in keys))
        ours = read_checkpoint(original).generation
        assert (ours.num_beams, ours.no_repeat_ngram_size, ours.early_stopping) == (1, 0, False)
        assert (ours.forced_bos_token_id, ours.forced_eos_token_id) == (None, 2)

    def test_one_end_token_may_stand_in_a_list(self, native: Path):
        edit_json(native / "generation_config.json", eos_token_id=[2])
        assert read_checkpoint(native).generation.eos_token_id == 2

    @pytest.mark.parametrize(
        ("key", "value"),
        [("eos_token_id", [2, 3]), ("num_beams", 0), ("num_beams", 2.5), ("early_stopping", "soon"), ("length_penalty", "long")],
    )
    def test_other_values_are_refused_by_name(self, native: Path, key: str, value: Any):
        edit_json(native / "generation_config.json", **{key: value})
        with pytest.raises(CheckpointError, match=rf"generation_config\.json: expected {key}"):
            read_checkpoint(native)

    def test_sampling_is_ignored_and_said(self, native: Path, caplog: pytest.LogCaptureFixture):
        edit_json(native / "generation_config.json", do_sample=True, repetition_penalty=1.0)
        with caplog.at_level(logging.WARNING, logger="florence2"):
            read_checkpoint(native)
        assert "do_sample is not supported" in caplog.text
        assert "repetition_penalty" not in caplog.text


class TestImage:
    def test_newer_and_older_files_say_the_same(self, native: Path):
        expected = read_checkpoint(native).image
        (native / "processor_config.json").rename(native / "kept.json")
        image = {"size": {"height": 64, "width": 64}, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
        write_json(native / "preprocessor_config.json", image)
        assert read_checkpoint(native).image == expected

    def test_absent_keys_mean_the_references_defaults(self, native: Path):
        size = {"height": 64, "width": 64}
        write_json(native / "processor_config.json", {"image_processor": {"size": size}})
        reference = CLIPImageProcessorPil(size=size)
        ours = read_checkpoint(native).image
        assert ours.mean == tuple(reference.image_mean)
        assert ours.std == tuple(reference.image_std)
        assert (ours.resample, ours.rescale_factor) == (int(reference.resample), reference.rescale_factor)

    def test_steps_that_are_off_are_neutral(self, native: Path):
        edit_json(native / "processor_config.json", image_processor__do_normalize=False, image_processor__do_rescale=False)
        ours = read_checkpoint(native).image
        assert (ours.mean, ours.std, ours.rescale_factor) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1.0)

    def test_other_sizes_and_crops_to_them_are_honoured(self, native: Path):
        size = {"height": 96, "width": 128}
        changes = {"size": size, "crop_size": size, "do_center_crop": True, "image_seq_length": 3 * 4 + 1}
        edit_json(native / "processor_config.json", **{f"image_processor__{key}": value for key, value in changes.items()})
        ours = read_checkpoint(native).image
        assert (ours.width, ours.height) == (128, 96)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("size", 64),
            ("size", {"shortest_edge": 64}),
            ("size", None),
            ("do_resize", False),
            ("image_seq_length", 577),
            ("resample", 9),
            ("image_mean", [0.5]),
            ("rescale_factor", "1/255"),
        ],
    )
    def test_what_the_engine_can_not_honour_is_refused_by_name(self, native: Path, key: str, value: Any):
        edit_json(native / "processor_config.json", **{f"image_processor__{key}": value})
        with pytest.raises(CheckpointError, match=rf"processor_config\.json: image_processor.*{key}"):
            read_checkpoint(native)

    def test_a_crop_that_cuts_is_refused(self, native: Path):
        edit_json(
            native / "processor_config.json", image_processor__do_center_crop=True, image_processor__crop_size={"height": 32, "width": 64}
        )
        with pytest.raises(CheckpointError, match="do_center_crop"):
            read_checkpoint(native)

    def test_a_grid_beyond_the_positions_is_refused(self, native: Path):
        edit_json(
            native / "processor_config.json", image_processor__size={"height": 320, "width": 64}, image_processor__image_seq_length=None
        )
        with pytest.raises(CheckpointError, match="grid of 2 x 10, the tower has positions for 1 to 8"):
            read_checkpoint(native)

    def test_no_word_about_images_is_refused(self, native: Path):
        edit_json(native / "processor_config.json", image_processor=None)
        with pytest.raises(CheckpointError, match=r"preprocessor_config\.json or processor_config\.json"):
            read_checkpoint(native)


class TestBannedPhrases:
    def test_the_checkpoints_list_wins(self, original: Path):
        phrases = {"phrase_grounding": {"banned_grounding_tokens": ["it", "Café"]}}
        write_json(original / "processor_config.json", {"post_processor_config": phrases})
        assert read_checkpoint(original).banned_phrases == {"it", "Café"}

    def test_a_native_checkpoint_without_a_list_bans_nothing(self, native: Path):
        edit_json(native / "processor_config.json", post_processor_config=None)
        assert read_checkpoint(native).banned_phrases == frozenset()
        edit_json(native / "processor_config.json", post_processor_config={"phrase_grounding": {}})
        assert read_checkpoint(native).banned_phrases == frozenset()

    def test_an_original_without_a_list_bans_the_known_phrases(self, original: Path):
        banned = read_checkpoint(original).banned_phrases
        assert {"it", "I", "they", "someone", "each other", "the image", "a", "a set", "lots"} <= banned
        assert not {"The", "It", "car", "the car"} & banned

    def test_another_kind_of_list_is_refused(self, native: Path):
        edit_json(native / "processor_config.json", post_processor_config__phrase_grounding__banned_grounding_tokens=["it", 3])
        with pytest.raises(CheckpointError, match="banned_grounding_tokens to be a list of strings"):
            read_checkpoint(native)


def test_missing_and_damaged_files_are_named(native: Path, tmp_path: Path):
    (native / "generation_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"generation_config\.json is damaged"):
        read_checkpoint(native)
    (native / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"config\.json: expected a JSON object"):
        read_checkpoint(native)
    (native / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"expected config\.json, found .*model\.safetensors"):
        read_checkpoint(native)
    with pytest.raises(CheckpointError, match=r"expected config\.json, found nothing"):
        read_checkpoint(tmp_path / "absent")
