"""Real checkpoint folders with random weights, for tests and benchmarks.

``write_checkpoint`` writes everything that a published folder holds, in either layout and any container: weights, all JSON files
and a working byte-level tokenizer with Florence's tokens. ``reference_model`` loads such a folder into the reference
implementation. Nothing is downloaded; the same seed gives the same folder.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor

from florence2.model import Florence2, Florence2Config, TextConfig, VisionConfig
from florence2.model.projector import temporal_table
from florence2.weights.grounding import ORIGINAL_BANNED_PHRASES
from florence2.weights.names import EMBEDDINGS, HEAD, LOGITS_BIAS, SHARED, TEMPORAL_TABLE, TRANSPOSED, to_native, to_original, to_ours

Layout = Literal["native", "original"]
Container = Literal["safetensors", "sharded", "bin", "sharded_bin"]

LOCATIONS = [f"<loc_{index}>" for index in range(1000)]
FLORENCE_TOKENS = [
    *("<od>", "</od>", "<ocr>", "</ocr>"),
    *LOCATIONS,
    *("<cap>", "</cap>", "<ncap>", "</ncap>", "<dcap>", "</dcap>", "<grounding>", "</grounding>", "<seg>", "</seg>", "<sep>"),
    *("<region_cap>", "</region_cap>", "<region_to_desciption>", "</region_to_desciption>"),
    *("<proposal>", "</proposal>", "<poly>", "</poly>", "<and>"),
]
MERGES = [
    *(("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("Ġ", "a"), ("i", "n"), ("o", "n"), ("Ġ", "i"), ("r", "e"), ("Ġi", "n"), ("a", "t")),
    *(("e", "r"), ("Ġ", "o"), ("a", "n"), ("Ġ", "w"), ("i", "t"), ("c", "a"), ("Ġi", "m"), ("a", "g"), ("Ġim", "ag"), ("Ġimag", "e")),
]


@dataclass(frozen=True)
class Size:
    """Dimensions of a checkpoint to write; the vocabulary is the tokenizer's part without Florence's 1,024 tokens."""

    vision: VisionConfig
    text: TextConfig
    image_size: int
    base_vocabulary: int = 50265


TINY = Size(
    VisionConfig(
        embed_dim=(8, 16, 24, 32),
        depths=(1, 1, 2, 1),
        num_heads=(1, 2, 2, 4),
        num_groups=(1, 2, 4, 2),
        window_size=3,
        projection_dim=32,
        max_position_embeddings=8,
        max_temporal_embeddings=5,
    ),
    TextConfig(
        vocab_size=0,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=48,
        max_position_embeddings=160,
    ),
    image_size=64,
    base_vocabulary=300,
)
# As tiny, with heads as wide as those of published models, for which there are compiled routines.
WIDE = replace(
    TINY,
    vision=replace(TINY.vision, projection_dim=64),
    text=replace(TINY.text, d_model=64, encoder_attention_heads=2, decoder_attention_heads=2),
)
BASE = Size(VisionConfig(), TextConfig(), 768)
LARGE = Size(
    VisionConfig(embed_dim=(256, 512, 1024, 2048), num_heads=(8, 16, 32, 64), num_groups=(8, 16, 32, 64), projection_dim=1024),
    TextConfig(
        d_model=1024,
        encoder_layers=12,
        decoder_layers=12,
        encoder_attention_heads=16,
        decoder_attention_heads=16,
        encoder_ffn_dim=4096,
        decoder_ffn_dim=4096,
    ),
    768,
)
SIZES = {"tiny": TINY, "wide": WIDE, "base": BASE, "large": LARGE}


def checkpoint_config(size: Size | str = "tiny", layout: Layout = "native", *, padded: bool = False) -> Florence2Config:
    """The configuration that a written checkpoint has. Native ones know ``<image>`` and may pad their table to 64 rows."""
    size = SIZES[size] if isinstance(size, str) else size
    vocabulary = size.base_vocabulary + len(FLORENCE_TOKENS)
    image_token_id = None
    if layout == "native":
        image_token_id, vocabulary = vocabulary, vocabulary + 1
        if padded:
            vocabulary = -(-vocabulary // 64) * 64
    return Florence2Config(size.vision, replace(size.text, vocab_size=vocabulary), image_token_id)


@cache
def _shapes(config: Florence2Config) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return {name: value.shape for name, value in Florence2(config).state_dict().items()}


def random_state(config: Florence2Config, seed: int = 0) -> dict[str, Tensor]:
    """Random float32 weights by our names, scaled so that every part has a say in the answer."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in _shapes(config).items():
        if name == TEMPORAL_TABLE:
            state[name] = temporal_table(*shape)
            continue
        values = torch.randn(shape, generator=generator)
        fan_in = shape[1:].numel() if len(shape) > 1 else 1
        if len(shape) == 1:
            is_scale = "norm" in name and name.endswith("weight")
            state[name] = values.mul_(0.1).add_(1.0 if is_scale else 0.0)
        elif "embed_positions" in name:
            # Positions that outweigh tokens keep generated text from repeating itself.
            state[name] = values
        else:
            is_table = "embed" in name or "shared" in name
            state[name] = values.mul_(0.3 if is_table else 1.5 / fan_in**0.5)
    return state


def in_layout(state: dict[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """The same weights under a layout's names, with all the copies and extras that a full state of it holds."""
    table = state[SHARED]
    full = {**state, **dict.fromkeys(EMBEDDINGS, table), HEAD: state.get(HEAD, table)}
    if layout == "native":
        return {to_native(name): value for name, value in full.items()}
    full[TRANSPOSED] = full[TRANSPOSED].T.contiguous()
    full[LOGITS_BIAS] = torch.zeros(1, table.shape[0], dtype=table.dtype)
    return {to_original(name): value for name, value in full.items()}


def write_checkpoint(
    folder: Path,
    *,
    layout: Layout = "native",
    container: Container = "safetensors",
    dtype: torch.dtype = torch.float32,
    size: Size | str = "tiny",
    seed: int = 0,
    padded: bool = False,
    tokenizer: bool = True,
    generation: dict[str, Any] | None = None,
) -> Path:
    """Write a whole checkpoint folder and return it.

    Args:
        folder: made if needed.
        layout: names of tensors, keys of ``config.json`` and choice of files.
        container: one safetensors file, shards with an index, or PyTorch's pickled counterparts.
        dtype: of the stored weights.
        size: "tiny", "wide", "base", "large" or a ``Size``.
        seed: of the random weights.
        padded: round a native token table up to a multiple of 64 rows.
        tokenizer: whether to write tokenizer files.
        generation: entries that change the generation defaults; None as a value removes one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    size = SIZES[size] if isinstance(size, str) else size
    config = checkpoint_config(size, layout, padded=padded)
    state = {name: value.to(dtype) for name, value in random_state(config, seed).items()}
    write_weights(folder, in_layout(state, layout), container)
    write_settings(folder, config, size, layout, generation or {})
    if tokenizer:
        write_tokenizer(folder, size.base_vocabulary, layout)
    return folder


def write_weights(folder: Path, tensors: dict[str, Tensor], container: Container) -> None:
    """Write tensors in a container. Safetensors hold no copies of tied tensors, pickled files hold them all, as in published folders."""
    if container in ("bin", "sharded_bin"):
        _write_container(folder, tensors, "pytorch_model.bin", container == "sharded_bin")
        return
    table = next(name for name in tensors if to_ours(name) == SHARED)
    head = next(name for name in tensors if to_ours(name) == HEAD)
    untied = not torch.equal(tensors[head], tensors[table])
    copies = {name for name in tensors if to_ours(name) in (*EMBEDDINGS, HEAD)} - {table} - ({head} if untied else set())
    kept = {name: value.contiguous() for name, value in tensors.items() if name not in copies}
    _write_container(folder, kept, "model.safetensors", container == "sharded")


def _write_container(folder: Path, tensors: dict[str, Tensor], name: str, sharded: bool) -> None:
    def write(part: dict[str, Tensor], path: Path) -> None:
        if path.suffix == ".bin":
            torch.save(part, path)
        else:
            save_file(part, path, metadata={"format": "pt"})

    if not sharded:
        write(tensors, folder / name)
        return
    stem, suffix = name.rsplit(".", 1)
    names, half = list(tensors), len(tensors) // 2
    weight_map = {}
    for number, part in enumerate((names[:half], names[half:]), start=1):
        shard = f"{stem}-{number:05d}-of-00002.{suffix}"
        write({key: tensors[key] for key in part}, folder / shard)
        weight_map.update(dict.fromkeys(part, shard))
    write_json(folder / f"{name}.index.json", {"metadata": {"total_size": 0}, "weight_map": weight_map})


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def edit_json(path: Path, **changes: Any) -> None:
    """Change entries of a JSON file; ``a__b`` is the entry b of the object a, and None removes the entry."""
    content = json.loads(path.read_text(encoding="utf-8"))
    for key, value in changes.items():
        *parents, last = key.split("__")
        target = content
        for parent in parents:
            target = target[parent]
        if value is None:
            target.pop(last, None)
        else:
            target[last] = value
    write_json(path, content)


GENERATION = {"num_beams": 3, "no_repeat_ngram_size": 3, "early_stopping": True, "decoder_start_token_id": 2}
GENERATION |= {"forced_bos_token_id": 0, "forced_eos_token_id": 2}
TOKEN_IDS = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}


def write_settings(folder: Path, config: Florence2Config, size: Size, layout: Layout, generation: dict[str, Any]) -> None:
    """Write all JSON files but the tokenizer's, with the keys that published folders carry and nobody needs."""
    defaults = {key: value for key, value in {**GENERATION, **TOKEN_IDS, **generation}.items() if value is not None}
    pixels = {"height": size.image_size, "width": size.image_size}
    image = {
        "crop_size": pixels,
        "do_center_crop": False,
        "do_convert_rgb": None,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_processor_type": "CLIPImageProcessor",
        "image_seq_length": config.vision.num_image_tokens(size.image_size, size.image_size),
        "image_std": [0.229, 0.224, 0.225],
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": pixels,
    }
    unneeded = {"transformers_version": "4.41.0", "torch_dtype": "float16", "id2label": {"0": "LABEL_0"}}
    text = {**asdict(config.text), "activation_function": "gelu", "dropout": 0.1, **TOKEN_IDS, "decoder_start_token_id": 2}
    if layout == "native":
        content = {
            "architectures": ["Florence2ForConditionalGeneration"],
            "model_type": "florence2",
            "image_token_id": config.image_token_id,
            "is_encoder_decoder": True,
            "text_config": {**text, "model_type": "bart"},
            "vision_config": {**asdict(config.vision), "model_type": "florence_vision", "drop_path_rate": 0.1},
            "tie_word_embeddings": True,
            "dtype": "float32",
        }
        write_json(folder / "generation_config.json", {**defaults, "transformers_version": "5.0.0"})
        write_json(folder / "processor_config.json", native_processor(image))
    else:
        vision = asdict(config.vision)
        frames, positions = vision.pop("max_temporal_embeddings"), vision.pop("max_position_embeddings")
        for key in ("in_channels", "mlp_ratio", "qkv_bias"):
            vision.pop(key)
        content = {
            **unneeded,
            "_name_or_path": "florence2",
            "architectures": ["Florence2ForConditionalGeneration"],
            "auto_map": {"AutoConfig": "configuration_florence2.Florence2Config"},
            "model_type": "florence2",
            "projection_dim": config.vision.projection_dim,
            "vocab_size": config.text.vocab_size,
            "ignore_index": -100,
            **TOKEN_IDS,
            "is_encoder_decoder": True,
            "text_config": {
                **unneeded,
                **text,
                **defaults,
                "model_type": "florence2_language",
                "normalize_before": False,
                "add_final_layer_norm": False,
                "add_bias_logits": False,
                "max_length": 20,
                "num_hidden_layers": config.text.encoder_layers,
                "scale_embedding": False,
            },
            "vision_config": {
                **vision,
                "dim_embed": vision.pop("embed_dim"),
                "model_type": "davit",
                "drop_path_rate": 0.1,
                "enable_checkpoint": False,
                "image_feature_source": ["spatial_avg_pool", "temporal_avg_pool"],
                "image_pos_embed": {"type": "learned_abs_2d", "max_pos_embeddings": positions},
                "visual_temporal_embedding": {"type": "COSINE", "max_temporal_embeddings": frames},
            },
        }
        content["vision_config"].pop("embed_dim", None)
        write_json(folder / "preprocessor_config.json", {**image, "auto_map": {"AutoProcessor": "processing_florence2.Florence2Processor"}})
    write_json(folder / "config.json", content)


def native_processor(image: dict[str, Any]) -> dict[str, Any]:
    """A native ``processor_config.json``."""
    described = ("description_with_bboxes", "description_with_polygons", "description_with_bboxes_or_polygons")
    return {
        "image_processor": image,
        "num_additional_image_tokens": 0,
        "post_processor_config": {
            "ocr": {"pattern": "(.+?)" + r"<loc_(\d+)>" * 8, "area_threshold": 0.0},
            "phrase_grounding": {"banned_grounding_tokens": sorted(ORIGINAL_BANNED_PHRASES)},
            **{kind: {} for kind in ("pure_text", "polygons", "bboxes", *described)},
        },
        "processor_class": "Florence2Processor",
    }


def tiny_tokenizer(base_vocabulary: int = 300, layout: Layout = "native") -> Tokenizer:
    """A byte-level tokenizer that can spell anything, with Florence's tokens from id ``base_vocabulary`` on (native layout)."""
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    words = [*specials, *sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in MERGES)]
    words += [f"filler{index}" for index in range(base_vocabulary - len(words) - 1)]
    words.append("<mask>")
    assert len(words) == base_vocabulary
    tokenizer = Tokenizer(models.BPE(vocab={word: index for index, word in enumerate(words)}, merges=MERGES, fuse_unk=False))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False)
    tokenizer.add_special_tokens([AddedToken(word, normalized=False) for word in specials])
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False)])
    if layout == "native":
        tokenizer.add_special_tokens([AddedToken(word, normalized=False) for word in [*FLORENCE_TOKENS, "<image>"]])
    return tokenizer


def write_tokenizer(folder: Path, base_vocabulary: int = 300, layout: Layout = "native") -> None:
    """Write the tokenizer's files: native folders hold Florence's tokens, original ones leave them to the code."""
    tokenizer = tiny_tokenizer(base_vocabulary, layout)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings: dict[str, Any] = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "model_max_length": 1024,
    }
    if layout == "native":
        settings |= {"tokenizer_class": "TokenizersBackend", "extra_special_tokens": {"image_token": "<image>"}, "image_token": "<image>"}
    else:
        plain = {word: index for word, index in tokenizer.get_vocab().items() if index < base_vocabulary}
        write_json(folder / "vocab.json", dict(sorted(plain.items(), key=lambda item: item[1])))
        merges = "".join(f"{first} {second}\n" for first, second in MERGES)
        (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}", encoding="utf-8")
    write_json(folder / "tokenizer_config.json", settings)


def reference_model(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """The reference implementation with a written checkpoint's weights, in evaluation mode."""
    from transformers import Florence2Config as ReferenceConfig
    from transformers import Florence2ForConditionalGeneration

    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if "dim_embed" not in content["vision_config"]:
        return Florence2ForConditionalGeneration.from_pretrained(folder, dtype=dtype).eval()
    vision, text = content["vision_config"], content["text_config"]
    vision = {
        **{key: vision[key] for key in ("depths", "num_heads", "num_groups", "window_size", "projection_dim")},
        **{key: vision[key] for key in ("patch_size", "patch_stride", "patch_padding", "patch_prenorm")},
        "embed_dim": vision["dim_embed"],
        "max_position_embeddings": vision["image_pos_embed"]["max_pos_embeddings"],
        "max_temporal_embeddings": vision["visual_temporal_embedding"]["max_temporal_embeddings"],
    }
    text = {key: text[key] for key in (*asdict(TextConfig()), *GENERATION, *TOKEN_IDS) if key in text}
    # The reference needs an id that stands for image tokens; the original layout has none, so one behind the table is borrowed.
    config = ReferenceConfig(vision_config=vision, text_config={**text, "model_type": "bart"}, image_token_id=3)
    model = Florence2ForConditionalGeneration(config)
    state = {to_native(to_ours(name)): value for name, value in read_weights(folder).items() if to_ours(name) != LOGITS_BIAS}
    key = to_native(TRANSPOSED)
    state[key] = state[key].T
    table = next(value for name, value in state.items() if to_ours(name) in (*EMBEDDINGS, HEAD))
    for name in (*EMBEDDINGS, HEAD):
        state.setdefault(to_native(name), table)
    if any(not torch.equal(state[to_native(name)], table) for name in (*EMBEDDINGS, HEAD)):
        # The reference reads such files in its own layout without tying what differs.
        for name in (*EMBEDDINGS, HEAD):
            model.get_submodule(to_native(name).removesuffix(".weight")).weight = torch.nn.Parameter(table.clone())
    model.load_state_dict(state, strict=True)
    return torch.nn.Module.to(model, dtype).eval()


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a written folder as they stand in its files."""
    tensors: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors.update(load_file(path))
    for path in sorted(folder.glob("*.bin")):
        tensors.update(torch.load(path, weights_only=True))
    return tensors


def rewrite_weights(folder: Path, **changes: Tensor | None) -> dict[str, Tensor]:
    """Write a folder's weights again as one safetensors file, with tensors added, replaced or (None) removed."""
    tensors = {name: value for name, value in {**read_weights(folder), **changes}.items() if value is not None}
    for path in [*folder.glob("*.safetensors"), *folder.glob("*.bin")]:
        path.unlink()
    tensors = {name: value.detach().clone().contiguous() for name, value in tensors.items()}
    save_file(tensors, folder / "model.safetensors")
    return tensors
