"""The special tokens of the Florence-2 family, by name and in order.

Original checkpoints have BART's vocabulary and add 1,024 tokens in code; native ones have them in ``tokenizer.json``. The order
defines the ids. Source of the order: the published checkpoints (ids 50265 to 51288); ``desciption`` is spelt as it is there. Knows names
only: the tokenizer knows ids.
"""

from __future__ import annotations

from florence2.location_bins import NUM_BINS

SENTINELS = ("<s>", "</s>", "<pad>")
"""Tokens at the start and end of a sequence, which are never part of an answer."""

IMAGE_TOKEN = "<image>"
"""The native layout's placeholder for an image's features, the last token of the vocabulary."""

STRUCTURAL = (*SENTINELS, IMAGE_TOKEN)
"""Tokens that a caller's text must not contain: they would change the layout of the model's input."""


def location_token(bin_index: int) -> str:
    """The token of one bin, such as ``<loc_42>``."""
    return f"<loc_{bin_index}>"


def _pair(name: str) -> tuple[str, str]:
    return f"<{name}>", f"</{name}>"


ADDED_TOKENS: tuple[str, ...] = (
    *_pair("od"),
    *_pair("ocr"),
    *(location_token(index) for index in range(NUM_BINS)),
    *_pair("cap"),
    *_pair("ncap"),
    *_pair("dcap"),
    *_pair("grounding"),
    *_pair("seg"),
    "<sep>",
    *_pair("region_cap"),
    *_pair("region_to_desciption"),
    *_pair("proposal"),
    *_pair("poly"),
    "<and>",
)
"""The 1,024 tokens that follow BART's 50,265, in the order of their ids."""
