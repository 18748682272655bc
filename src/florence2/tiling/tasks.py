"""Which tasks make sense in parts, and how their answers about tiles belong together.

In: a parsed prompt. Out: what tiles are asked, or a refusal; and how objects of different tiles are compared. Knows nothing of pictures.
"""

from __future__ import annotations

from dataclasses import dataclass

from florence2.errors import InvalidOption
from florence2.tasks.prompt import Prompt, parse_prompt

OCR = "<OCR>"
OCR_WITH_REGION = "<OCR_WITH_REGION>"


@dataclass(frozen=True)
class Matching:
    """How objects of different tiles are compared.

    Attributes:
        by_label: only objects of one label can be the same thing; otherwise their places alone count.
        has_callers_labels: labels are the caller's own words, of which several may mean one place.
        is_text: objects are pieces of text, to be put into reading order.
    """

    by_label: bool
    has_callers_labels: bool = False
    is_text: bool = False


MATCHINGS = {
    "<OD>": Matching(by_label=True),
    "<DENSE_REGION_CAPTION>": Matching(by_label=False),
    "<REGION_PROPOSAL>": Matching(by_label=False),
    "<CAPTION_TO_PHRASE_GROUNDING>": Matching(by_label=True, has_callers_labels=True),
    "<OPEN_VOCABULARY_DETECTION>": Matching(by_label=True, has_callers_labels=True),
    OCR_WITH_REGION: Matching(by_label=False, is_text=True),
}
"""The tasks that tiles are asked, by tag. ``<OCR>`` is asked as ``<OCR_WITH_REGION>``."""

TILED_TAGS = (*MATCHINGS, OCR)

_REASONS = {
    None: "a free prompt is about the whole picture",
    "text": "it describes the whole picture, and the descriptions of its parts make none",
    "region": "its region lies in one place: cut that out of the picture and ask about the cutting instead",
    "polygons": "it outlines the one thing of the whole picture that a text means, and a tile without that thing would give another",
}


def asked_of_tiles(prompt: Prompt) -> Prompt:
    """The prompt that is asked about each tile: a plain ``<OCR>`` needs places, to be put together again."""
    return parse_prompt(OCR_WITH_REGION) if prompt.tag == OCR else prompt


def check_tiled(prompt: Prompt) -> None:
    """Refuse a prompt that makes no sense about parts of a picture.

    Raises:
        InvalidOption: it asks for a text about the whole picture, about a region, or for the one thing that an expression means.
    """
    if prompt.tag in TILED_TAGS:
        return
    reason = _REASONS["region" if (prompt.tag or "").startswith("<REGION_TO") else None if prompt.tag is None else prompt.kind]
    name = "a free prompt" if prompt.tag is None else prompt.tag
    raise InvalidOption(f"tiles do not go with {name}: {reason}; leave tiles out, or ask {', '.join(TILED_TAGS)}", field="tiles")
