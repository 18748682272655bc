"""What comes back from one request.

A :class:`Result` holds one answer, whatever its task: text, boxes, quads or polygons, with labels, scores and the tokens it
was read from. ``to_dict`` gives the dictionary that Florence-2's clients parse. It is a plain value: it can be compared,
pickled and written as JSON, and knows neither model nor tokenizer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from florence2.errors import InvalidOption

Kind = Literal["text", "boxes", "quads", "polygons", "boxes_or_polygons"]
FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, repr=False)
class Result:
    """One answer.

    Coordinates are pixels of the original image, x before y. The lists ``labels``, ``scores`` and ``bins`` run along the
    objects found: the boxes, the quads, or the polygons.

    Attributes:
        task: The one key of :meth:`to_dict`: the task's tag, or what stands for a free prompt.
        kind: What was asked for; ``boxes_or_polygons`` holds either boxes or polygons.
        image_size: Width and height of the original image in pixels.
        text: The answer's text; for located objects the generated text without its framing tokens.
        raw: The generated text with all special tokens.
        boxes: One [x1, y1, x2, y2] per object.
        quads: One [x1, y1, x2, y2, x3, y3, x4, y4] per object.
        polygons: Per object its polygons, each a flat list x, y, x, y, ...
        labels: One per object, in the order of generation.
        bins: The location bins (thousandths of width and height) as generated, nested like the coordinates.
        scores: Per object exp of the mean log-probability of its label and location tokens; None when not asked for.
        label_scores: The same over the label's tokens alone; None inside for an object without a label.
        location_scores: The same over the location tokens alone.
        token_ids: What was generated, the framing tokens included.
        finish_reason: ``stop`` when the model ended its answer, ``length`` when the token limit did.
        log_probability: Sum over the generated tokens; None when not known.
    """

    task: str
    kind: Kind
    image_size: tuple[int, int]
    text: str
    raw: str
    boxes: list[list[int]] = field(default_factory=list)
    quads: list[list[int]] = field(default_factory=list)
    polygons: list[list[list[int]]] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    bins: list[Any] = field(default_factory=list)
    scores: list[float] | None = None
    label_scores: list[float | None] | None = None
    location_scores: list[float | None] | None = None
    token_ids: list[int] = field(default_factory=list)
    finish_reason: FinishReason = "stop"
    log_probability: float | None = None

    def to_dict(self, scores: bool | None = None, coordinates: Literal["int", "float"] = "int") -> dict[str, Any]:
        """The reference's dictionary: one key, the task, and under it a string or the objects found.

        Args:
            scores: Whether ``scores`` stands beside the objects; None means if there are any. A text answer never has them.
            coordinates: ``int`` for whole pixels as in the reference; ``float`` for the unrounded middle of each bin.

        Raises:
            InvalidOption: Scores wanted that were not asked for in the request, or another word for ``coordinates``.
        """
        if coordinates not in ("int", "float"):
            raise InvalidOption(f"coordinates must be 'int' or 'float'; got {coordinates!r}", field="coordinates")
        if self.kind == "text":
            return {self.task: self.text}
        answer = self._objects(_middles(self.bins, self.image_size) if coordinates == "float" else None)
        if scores and self.scores is None:
            raise InvalidOption("this result has no scores; ask for them in the request with scores=True", field="scores")
        if self.scores is not None and scores is not False:
            answer["scores"] = list(self.scores)
        return {self.task: answer}

    def _objects(self, middles: list[Any] | None) -> dict[str, Any]:
        found = middles if middles is not None else _copied(self.boxes or self.quads or self.polygons)
        labels = list(self.labels)
        if self.kind == "boxes":
            return {"bboxes": found, "labels": labels}
        if self.kind == "quads":
            return {"quad_boxes": found, "labels": labels}
        if self.kind == "polygons":
            return {"polygons": found, "labels": labels}
        if self.polygons:
            return {"bboxes": [], "bboxes_labels": [], "polygons": found, "polygons_labels": labels}
        return {"bboxes": found, "bboxes_labels": labels, "polygons": [], "polygons_labels": []}

    def __repr__(self) -> str:
        """Short enough for a log line: task, what was found, and why it ended."""
        if self.kind == "text":
            found = _shortened(repr(self.text), 60)
        else:
            what = "polygons" if self.polygons else {"boxes_or_polygons": "boxes"}.get(self.kind, self.kind)
            found = f"{len(self.labels)} {what}: " + _shortened(", ".join(map(repr, self.labels)), 60)
        return f"<Result {self.task} {found} ({self.finish_reason})>"


def _middles(bins: list[Any], image_size: tuple[int, int]) -> list[Any]:
    if bins and isinstance(bins[0], int):
        return [(value + 0.5) * image_size[index % 2] / 1000 for index, value in enumerate(bins)]
    return [_middles(inner, image_size) for inner in bins]


def _copied(nested: Any) -> Any:
    return [_copied(inner) for inner in nested] if isinstance(nested, list) else nested


def _shortened(shown: str, limit: int) -> str:
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."
