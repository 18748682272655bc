"""A checkpoint's settings for images, generation and grounding.

In: a checkpoint's folder and its parsed ``config.json``. Out: ``ImageSettings``, ``GenerationDefaults`` and the phrases that
grounding drops. An unsupported value is an error that names it. Knows nothing of tensors.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from florence2.errors import CheckpointError
from florence2.model.config import VisionConfig
from florence2.weights.architecture import is_original
from florence2.weights.grounding import ORIGINAL_BANNED_PHRASES
from florence2.weights.json_reader import JsonObject, read_json_if_there

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageSettings:
    """The settings of image preprocessing.

    Attributes:
        width: width after resizing, in pixels; the aspect ratio is not kept.
        height: height after resizing, in pixels.
        mean: subtracted from red, green and blue after rescaling.
        std: divisor of red, green and blue after that.
        rescale_factor: factor of the 8-bit values, applied first.
        resample: Pillow's number of the filter (3 is bicubic).
    """

    width: int = 768
    height: int = 768
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    rescale_factor: float = 1 / 255
    resample: int = 3


@dataclass(frozen=True)
class GenerationDefaults:
    """A checkpoint's defaults of generation, for options that a request leaves open.

    Attributes:
        num_beams: number of beams; 1 is greedy search.
        max_new_tokens: the largest number of tokens after the decoder's start token; None if the checkpoint sets no limit. A
            ``max_length`` in the file includes the start token, so it is one more.
        no_repeat_ngram_size: length of the n-grams that must not repeat; 0 is off.
        early_stopping: True ends a beam search as soon as ``num_beams`` answers are finished; False and "never" as in the reference.
        length_penalty: a beam's score is divided by its length to the power of this.
        forced_bos_token_id: the id that is always generated first; None for no rule.
        forced_eos_token_id: the id that is always generated last at the length limit; None for no rule.
    """

    num_beams: int = 3
    max_new_tokens: int | None = None
    no_repeat_ngram_size: int = 3
    early_stopping: bool | str = True
    length_penalty: float = 1.0
    decoder_start_token_id: int = 2
    forced_bos_token_id: int | None = 0
    forced_eos_token_id: int | None = 2
    bos_token_id: int = 0
    eos_token_id: int = 2
    pad_token_id: int = 1


# The defaults of the reference's image processor, for missing keys.
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def read_image_settings(folder: Path, vision: VisionConfig) -> ImageSettings:
    """The image settings from ``processor_config.json`` (newer native checkpoints) or ``preprocessor_config.json``.

    Raises:
        CheckpointError: neither file has them, or they are not supported or do not fit the tower.
    """
    processor = read_json_if_there(folder / "processor_config.json")
    image = processor.object("image_processor") if processor is not None and "image_processor" in processor else None
    image = image or read_json_if_there(folder / "preprocessor_config.json")
    if image is None:
        raise CheckpointError(
            f"{folder} says nothing about images: expected preprocessor_config.json or processor_config.json with an image_processor. "
            "Copy the one of the checkpoint that this one was made from."
        )
    image.require("do_resize", (True,), "resizing to the tower's size")
    height, width = _size(image, "size")
    if image.flag("do_center_crop", False) and _size(image, "crop_size") != (height, width):
        raise CheckpointError(f"{image.where}: do_center_crop to another crop_size than size is not supported.")
    rescales, normalises = image.flag("do_rescale", True), image.flag("do_normalize", True)
    resample = image.integer("resample", 3)
    if resample > 5:
        raise image.refuse("resample", "one of Pillow's filters 0 to 5")
    settings = ImageSettings(
        width=width,
        height=height,
        mean=_three(image.numbers("image_mean", _CLIP_MEAN, 3)) if normalises else (0.0, 0.0, 0.0),
        std=_three(image.numbers("image_std", _CLIP_STD, 3)) if normalises else (1.0, 1.0, 1.0),
        rescale_factor=image.number("rescale_factor", 1 / 255) if rescales else 1.0,
        resample=resample,
    )
    _check_tower(image, settings, vision)
    return settings


def _three(values: tuple[float, ...]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue


def _size(image: JsonObject, key: str) -> tuple[int, int]:
    """Height and width. In the reference a plain number or ``shortest_edge`` keeps the aspect ratio, which is not supported."""
    value = image.get(key)
    if not isinstance(value, dict) or not {"height", "width"} <= value.keys():
        raise image.refuse(key, '{"height": …, "width": …}; sizes that keep the aspect ratio do not fit the tower')
    size = image.object(key)
    return size.integer("height", 0, minimum=1), size.integer("width", 0, minimum=1)


def _check_tower(image: JsonObject, settings: ImageSettings, vision: VisionConfig) -> None:
    rows, columns = vision.grid_size(settings.height, settings.width)
    if min(rows, columns) < 1 or max(rows, columns) > vision.max_position_embeddings:
        raise CheckpointError(
            f"{image.where}: images of {settings.width} x {settings.height} give a grid of {columns} x {rows}, "
            f"the tower has positions for 1 to {vision.max_position_embeddings} each way."
        )
    tokens = vision.num_image_tokens(settings.height, settings.width)
    if image.integer("image_seq_length", tokens) != tokens:
        raise image.refuse("image_seq_length", f"{tokens}, which is what the tower makes of {settings.width} x {settings.height} pixels")


def read_generation_defaults(folder: Path, config: JsonObject) -> GenerationDefaults:
    """The generation defaults.

    ``generation_config.json`` comes first. For an original checkpoint, keys that it lacks are read from ``text_config`` and then
    from the top level of ``config.json``. For a native one it is the only source, as in the reference, except for token ids, which
    generation needs. Keys that no file has get the reference's default: greedy search, no n-gram rule.

    Raises:
        CheckpointError: a value has the wrong type, or there are several end tokens.
    """
    generation = read_json_if_there(folder / "generation_config.json")
    text = config.object("text_config")
    if is_original(config):
        sources = [generation, text, config] if generation else [text, config]
    else:
        sources = [generation] if generation else [config, text]
    ids = [*sources, text, config]

    def first(key: str, among: list[JsonObject]) -> JsonObject:
        return next((source for source in among if key in source), sources[0])

    for source in sources:
        _warn_of_sampling(source)
    # The configuration class of original checkpoints forces the end token by default.
    forced_eos_default = 2 if is_original(config) else None
    return GenerationDefaults(
        num_beams=first("num_beams", sources).integer("num_beams", 1, minimum=1),
        max_new_tokens=_max_new_tokens(generation, sources),
        no_repeat_ngram_size=first("no_repeat_ngram_size", sources).integer("no_repeat_ngram_size", 0),
        early_stopping=_early_stopping(first("early_stopping", sources)),
        length_penalty=first("length_penalty", sources).number("length_penalty", 1.0),
        decoder_start_token_id=_token(first("decoder_start_token_id", ids), "decoder_start_token_id", 2),
        forced_bos_token_id=_optional_token(first("forced_bos_token_id", sources), "forced_bos_token_id", None),
        forced_eos_token_id=_optional_token(first("forced_eos_token_id", sources), "forced_eos_token_id", forced_eos_default),
        bos_token_id=_token(first("bos_token_id", ids), "bos_token_id", 0),
        eos_token_id=_token(first("eos_token_id", ids), "eos_token_id", 2),
        pad_token_id=_token(first("pad_token_id", ids), "pad_token_id", 1),
    )


def _max_new_tokens(generation: JsonObject | None, sources: list[JsonObject]) -> int | None:
    for source in sources:
        if "max_new_tokens" in source:
            return source.integer("max_new_tokens", 0, minimum=1)
        # Old versions of the reference write a max_length of 20 into every config.json that sets no limit.
        if "max_length" in source and (source is generation or source.get("max_length") != 20):
            return source.integer("max_length", 0, minimum=2) - 1
    return None


def _early_stopping(source: JsonObject) -> bool | str:
    value = source.get("early_stopping")
    if value is None or isinstance(value, bool):
        return bool(value)
    if value != "never":
        raise source.refuse("early_stopping", 'true, false or "never"')
    return "never"


def _token(source: JsonObject, key: str, default: int) -> int:
    token = _optional_token(source, key, default)
    return default if token is None else token


def _optional_token(source: JsonObject, key: str, default: int | None) -> int | None:
    value: Any = source.get(key)
    if value is None:
        return default
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise source.refuse(key, "one token id")
    return value


def _warn_of_sampling(source: JsonObject) -> None:
    neutral = {"do_sample": (False,), "num_beam_groups": (1,), "repetition_penalty": (1, 1.0), "min_length": (0,)}
    for key, harmless in neutral.items():
        if key in source and source.get(key) not in harmless:
            logger.warning("%s: %s is not supported and is ignored: answers come from greedy or beam search", source.where, key)


def read_banned_phrases(folder: Path, config: JsonObject) -> frozenset[str]:
    """The phrases that grounding drops; for original checkpoints that do not list them, the original list.

    Raises:
        CheckpointError: the list is not one of strings.
    """
    processor = read_json_if_there(folder / "processor_config.json")
    if processor is not None and "post_processor_config" in processor:
        grounding = processor.object("post_processor_config").object("phrase_grounding")
        phrases = grounding.get("banned_grounding_tokens") or []
        if not isinstance(phrases, list) or not all(isinstance(phrase, str) for phrase in phrases):
            raise grounding.refuse("banned_grounding_tokens", "a list of strings")
        return frozenset(phrases)
    return ORIGINAL_BANNED_PHRASES if is_original(config) else frozenset()
