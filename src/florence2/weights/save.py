"""Saves a model as a folder in the native layout.

In: a model and its settings. Out: ``model.safetensors`` and the JSON files that this package and the reference implementation read,
without those of the tokenizer (``Tokenizer.save`` writes them). Each file is written to a temporary name and then renamed, so a model may
be saved into the folder that it is mapped from.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from florence2.model import Florence2, Florence2Config
from florence2.outputs import refuse_url
from florence2.weights.defaults import GenerationDefaults, ImageSettings
from florence2.weights.names import EMBEDDINGS, HEAD, SHARED, to_native
from florence2.weights.untied import UntiedBart

_DTYPE_NAMES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}
_NUM_LOCATIONS_OF_A_QUAD = 8


def save_native(
    model: Florence2,
    folder: str | Path,
    *,
    dtype: torch.dtype = torch.float16,
    image: ImageSettings | None = None,
    generation: GenerationDefaults | None = None,
    banned_phrases: Collection[str] = (),
) -> None:
    """Write weights, configuration, generation and processor files.

    Args:
        model: a model on any device and of any type.
        folder: created if it is missing; existing files of the same names are replaced.
        dtype: the type of the stored weights: float16, bfloat16 or float32.
        image: the settings of image preprocessing; None for those of the published checkpoints.
        generation: the defaults of generation; None for those of the published checkpoints.
        banned_phrases: labels that grounding drops.

    Raises:
        InvalidOption: the folder is a URL.
    """
    refuse_url(folder, "folder")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    image, generation = image or ImageSettings(), generation or GenerationDefaults()
    tensors = {}
    for name, value in model.state_dict().items():
        ours = HEAD if name == f"language_model.{HEAD}" else name
        tensors[to_native(ours)] = value.detach().to(device="cpu", dtype=dtype).contiguous()
    if isinstance(model.language_model, UntiedBart):
        # The tables are not tied, so the reference expects each of them.
        for name in (*EMBEDDINGS, HEAD):
            tensors.setdefault(to_native(name), tensors[to_native(SHARED)].clone())
    partial = folder / "model.safetensors.partial"
    save_file(tensors, partial, metadata={"format": "pt"})
    os.replace(partial, folder / "model.safetensors")
    processor = _image_processor(model.config, image)
    files = {
        "config.json": _config(model, generation, dtype),
        "generation_config.json": {key: value for key, value in asdict(generation).items() if value is not None},
        "preprocessor_config.json": {**processor, "processor_class": "Florence2Processor"},
        "processor_config.json": {
            "image_processor": processor,
            "num_additional_image_tokens": 0,
            "post_processor_config": _post_processor(banned_phrases),
            "processor_class": "Florence2Processor",
        },
    }
    for name, content in files.items():
        write_json(folder / name, content)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(partial, path)


def _config(model: Florence2, generation: GenerationDefaults, dtype: torch.dtype) -> dict[str, Any]:
    config = model.config
    tied = not isinstance(model.language_model, UntiedBart)
    vision, text = asdict(config.vision), asdict(config.text)
    text.update(
        activation_function="gelu",
        bos_token_id=generation.bos_token_id,
        decoder_start_token_id=generation.decoder_start_token_id,
        eos_token_id=generation.eos_token_id,
        is_encoder_decoder=True,
        model_type="bart",
        tie_word_embeddings=tied,
    )
    content: dict[str, Any] = {
        "architectures": ["Florence2ForConditionalGeneration"],
        "dtype": _DTYPE_NAMES[dtype],
        "is_encoder_decoder": True,
        "model_type": "florence2",
        "text_config": text,
        "tie_word_embeddings": tied,
        "vision_config": {**vision, "activation_function": "gelu", "model_type": "florence_vision"},
    }
    if config.image_token_id is not None:
        content["image_token_id"] = config.image_token_id
    return content


def _image_processor(config: Florence2Config, image: ImageSettings) -> dict[str, Any]:
    size = {"height": image.height, "width": image.width}
    return {
        "crop_size": size,
        "do_center_crop": False,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(image.mean),
        "image_processor_type": "CLIPImageProcessor",
        "image_seq_length": config.vision.num_image_tokens(image.height, image.width),
        "image_std": list(image.std),
        "resample": image.resample,
        "rescale_factor": image.rescale_factor,
        "size": size,
    }


def _post_processor(banned_phrases: Collection[str]) -> dict[str, Any]:
    """The reference's settings of post-processing: a pattern for OCR; the other entries only have to exist."""
    described = ("description_with_bboxes", "description_with_polygons", "description_with_bboxes_or_polygons")
    return {
        "ocr": {"pattern": "(.+?)" + r"<loc_(\d+)>" * _NUM_LOCATIONS_OF_A_QUAD, "area_threshold": 0.0},
        "phrase_grounding": {"banned_grounding_tokens": sorted(banned_phrases)},
        **{kind: {} for kind in ("pure_text", "bboxes", "polygons", *described)},
    }
