"""The table of Florence-2's fifteen tasks.

A row has the task's tag, the sentence that the model was trained with, the part that the caller has to add, and the grammar of the
answer. Prompts, parsing, the command line and the documentation all use this table. Source: the reference implementation and the
published checkpoints.
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
        tag: the name in angle brackets that callers write, such as ``<OD>``.
        template: the sentence for the model, with ``{text}`` or ``{region}`` for the caller's part.
        needs: the part that the caller has to add to the tag: a text, a region, or None.
        grammar: the form in which the model writes its answer.
    """

    tag: str
    template: str
    needs: Need | None
    grammar: Grammar

    @property
    def name(self) -> str:
        """The tag as a name that needs no quoting in a shell, such as ``ocr-with-region``."""
        return self.tag.strip("<>").lower().replace("_", "-")

    @property
    def kind(self) -> Kind:
        """The kind of a result of this task."""
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
"""All tasks by tag."""
