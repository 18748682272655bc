"""The fifteen tasks of Florence-2: one table, and the only one.

Each row says which tag names the task, which sentence the model was trained to see, what the caller has to add, and what
comes back. Prompts, parsing, command line and documentation all read it from here. Source: the reference implementation
and the published checkpoints.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from florence2.results import Kind

Need = Literal["text", "region"]
Grammar = Literal["text", "labelled_boxes", "bare_boxes", "phrase_boxes", "quads", "polygons", "boxes_or_polygons"]


@dataclass(frozen=True)
class Task:
    """One row of the table.

    Attributes:
        tag: The name in angle brackets that callers write, such as ``<OD>``.
        template: The sentence for the model, with ``{text}`` or ``{region}`` where the caller's part goes.
        needs: What the caller has to add to the tag: nothing, a text, or a region.
        grammar: How the model writes its answer down, which is how it is parsed.
    """

    tag: str
    template: str
    needs: Need | None
    grammar: Grammar

    @property
    def name(self) -> str:
        """The tag in letters that no shell reads otherwise, such as ``ocr-with-region``."""
        return self.tag.strip("<>").lower().replace("_", "-")

    @property
    def kind(self) -> Kind:
        """What a result of this task holds."""
        return _KINDS[self.grammar]


_KINDS: dict[Grammar, Kind] = {
    "text": "text",
    "labelled_boxes": "boxes",
    "bare_boxes": "boxes",
    "phrase_boxes": "boxes",
    "quads": "quads",
    "polygons": "polygons",
    "boxes_or_polygons": "boxes_or_polygons",
}

_ROWS = (
    Task("<CAPTION>", "What does the image describe?", None, "text"),
    Task("<DETAILED_CAPTION>", "Describe in detail what is shown in the image.", None, "text"),
    Task("<MORE_DETAILED_CAPTION>", "Describe with a paragraph what is shown in the image.", None, "text"),
    Task("<OCR>", "What is the text in the image?", None, "text"),
    Task("<OCR_WITH_REGION>", "What is the text in the image, with regions?", None, "quads"),
    Task("<OD>", "Locate the objects with category name in the image.", None, "labelled_boxes"),
    Task("<DENSE_REGION_CAPTION>", "Locate the objects in the image, with their descriptions.", None, "labelled_boxes"),
    Task("<REGION_PROPOSAL>", "Locate the region proposals in the image.", None, "bare_boxes"),
    Task("<CAPTION_TO_PHRASE_GROUNDING>", "Locate the phrases in the caption: {text}", "text", "phrase_boxes"),
    Task("<OPEN_VOCABULARY_DETECTION>", "Locate {text} in the image.", "text", "boxes_or_polygons"),
    Task("<REFERRING_EXPRESSION_SEGMENTATION>", "Locate {text} in the image with mask", "text", "polygons"),
    Task("<REGION_TO_SEGMENTATION>", "What is the polygon mask of region {region}", "region", "polygons"),
    Task("<REGION_TO_CATEGORY>", "What is the region {region}?", "region", "text"),
    Task("<REGION_TO_DESCRIPTION>", "What does the region {region} describe?", "region", "text"),
    Task("<REGION_TO_OCR>", "What text is in the region {region}?", "region", "text"),
)

TASKS: dict[str, Task] = {task.tag: task for task in _ROWS}
"""Every task by its tag."""
