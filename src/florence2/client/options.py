"""The options of ``infer_lmm`` and ``stream_lmm`` beyond those of the known client, as types.

The names, types and meanings of the options that are sent as fields of the request. Knows neither their values nor how they are sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict

Region = str | Sequence[float]
OnError = Literal["fail", "item"]


class PromptOptions(TypedDict, total=False):
    """One of several prompts, where it is more than a string."""

    prompt: str
    text: str
    region: Region


Prompts = Sequence[str | PromptOptions]


class LmmFields(TypedDict, total=False):
    """``LmmOptions`` without ``prompts``, on which the type of the result depends."""

    text: str | None
    region: Region | None
    num_beams: int | None
    no_repeat_ngram_size: int | None
    scores: bool | None
    coordinates: Literal["int", "float"] | None
    raw: bool | None
    usage: bool | None
    allow_unknown_tag: bool | None
    tiles: str | int | None
    tile_overlap: float | None
    tiles_only: bool | None


class LmmOptions(LmmFields, total=False):
    """What this project's server takes beyond the known client; sent only when given. Other servers ignore it; tiles are not sent to them.

    Attributes:
        text: the text of a task that needs one, apart from its tag.
        region: x1, y1, x2, y2 in pixels of the image as given, or ``<loc_…>`` tokens.
        num_beams: hypotheses followed at once.
        no_repeat_ngram_size: no run of so many tokens comes twice; 0 switches it off.
        scores: True adds scores to found objects.
        coordinates: ``float`` for unrounded coordinates.
        raw: True adds the generated text, its tokens and why it ended.
        usage: True adds how many tokens were read and generated.
        allow_unknown_tag: True lets a fine-tuned checkpoint's own tag pass.
        tiles: ask about overlapping parts of each image, too, for small things: a grid of columns x rows ("2x2"), or the side of a tile in
            pixels of the image as it is sent (640). Not with ``stream_lmm``.
        tile_overlap: the share of a tile that its neighbour shows, too, 0 to 0.5.
        tiles_only: True asks about the tiles alone, not about the whole image besides.
        prompts: several prompts about each image instead of ``prompt``; the image is encoded once.
    """

    prompts: Prompts | None
