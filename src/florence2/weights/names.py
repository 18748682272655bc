"""Tensor names as data: the original layout, the native layout, and ours.

Our names are the native names without their leading ``model.``. The same rules apply to names of modules (in adapters) and of
tensors, because each rule replaces leading segments as a whole. Segments that training frameworks insert, anywhere and in any order,
are removed first. Knows nothing of files or shapes.
Source: the two published layouts, compared tensor by tensor.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

SHARED = "language_model.shared.weight"
HEAD = "lm_head.weight"
ENCODER_TABLE = "language_model.encoder.embed_tokens.weight"
DECODER_TABLE = "language_model.decoder.embed_tokens.weight"
EMBEDDINGS = (SHARED, ENCODER_TABLE, DECODER_TABLE)
LOGITS_BIAS = "final_logits_bias"
TEMPORAL_TABLE = "multi_modal_projector.visual_temporal_embed.pos_idx_to_embed"

# The one tensor that the original layout stores transposed ([vision width, text width]).
TRANSPOSED = "multi_modal_projector.image_projection.weight"

_BLOCK = "vision_tower.blocks.#.#"
# Segments of the original layout -> ours; "#" stands for one index.
_RULES: tuple[tuple[str, str], ...] = (
    ("vision_tower.convs.#.proj", "vision_tower.convs.#.conv"),
    *(
        (f"{_BLOCK}.{block}.{original}", f"{_BLOCK}.{block}.{ours}")
        for block, attention in (("spatial_block", "window_attn"), ("channel_block", "channel_attn"))
        for original, ours in (
            ("conv1.fn.dw", "conv1"),
            ("conv2.fn.dw", "conv2"),
            (f"{attention}.norm", "norm1"),
            (f"{attention}.fn", attention),
            ("ffn.norm", "norm2"),
            ("ffn.fn.net", "ffn"),
        )
    ),
    ("image_projection", "multi_modal_projector.image_projection.weight"),
    ("image_proj_norm", "multi_modal_projector.image_proj_norm"),
    ("image_pos_embed", "multi_modal_projector.image_position_embed"),
    ("visual_temporal_embed", "multi_modal_projector.visual_temporal_embed"),
    ("language_model.lm_head", "lm_head"),
    ("language_model.final_logits_bias", LOGITS_BIAS),
)
# In the original layout, the text model is nested one level deeper.
_NESTED = ("language_model", "language_model.model")
# Segments that frameworks for training, compilation and adapters insert anywhere, once or several times. Our names have none of them,
# and the original layout's "model" carries no meaning either.
_WRAPPERS = {"model", "module", "base_model", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}


def _compile(rules: Iterable[tuple[str, str]]) -> tuple[tuple[re.Pattern[str], str], ...]:
    """Patterns that match whole segments at the start of a name, with their replacements."""
    compiled = []
    for source, target in rules:
        pattern = re.escape(source).replace(r"\#", "#").replace("#", r"(\d+)")
        indices = iter(range(1, 10))
        replacement = re.sub("#", lambda _, indices=indices: rf"\{next(indices)}", target)
        compiled.append((re.compile(rf"^{pattern}(?=\.|$)"), replacement))
    return tuple(compiled)


_FROM_ORIGINAL = _compile(_RULES)
_TO_ORIGINAL = _compile((*((ours, original) for original, ours in _RULES), _NESTED))


def _apply(rules: tuple[tuple[re.Pattern[str], str], ...], name: str) -> str:
    for pattern, replacement in rules:
        renamed, count = pattern.subn(replacement, name, count=1)
        if count:
            return renamed
    return name


def without_wrappers(name: str) -> str:
    """The name without segments that distributed training, compilation or adapters insert."""
    return ".".join(segment for segment in name.split(".") if segment not in _WRAPPERS)


@lru_cache(4096)
def to_ours(name: str) -> str:
    """Our name for a tensor or module of either layout; from other names, only wrappers are removed."""
    return _apply(_FROM_ORIGINAL, without_wrappers(name))


def is_original(name: str) -> bool:
    """Whether a name, wrapped or not, is of the original layout only."""
    return to_ours(name) != without_wrappers(name)


def to_native(name: str) -> str:
    """The native layout's name for one of ours."""
    return name if name.startswith(("lm_head", LOGITS_BIAS)) else f"model.{name}"


def to_original(name: str) -> str:
    """The original layout's name for one of ours. The tensor ``TRANSPOSED`` must also be transposed."""
    return _apply(_TO_ORIGINAL, name)
