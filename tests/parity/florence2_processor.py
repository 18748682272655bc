"""The reference's processor without a checkpoint: only what turns prompts into sentences and text into answers."""

from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import patch

from transformers.models.florence2.processing_florence2 import Florence2Processor
from transformers.processing_utils import ProcessorMixin

BANNED = frozenset({"it", "the image", "a"})
_ANSWER_TYPES = (
    "pure_text",
    "ocr",
    "description_with_bboxes",
    "phrase_grounding",
    "polygons",
    "description_with_bboxes_or_polygons",
    "bboxes",
)


def reference_processor() -> Florence2Processor:
    tokenizer = SimpleNamespace(all_special_tokens=[], image_token="<image>", image_token_id=51289, bos_token_id=0)
    settings: dict[str, dict] = {name: {} for name in _ANSWER_TYPES}
    settings["phrase_grounding"] = {"banned_grounding_tokens": sorted(BANNED)}
    with patch.object(ProcessorMixin, "__init__", lambda self, *args, **kwargs: None):
        return Florence2Processor(SimpleNamespace(image_seq_length=577), tokenizer, post_processor_config=settings)
