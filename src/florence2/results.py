"""The answer to one request.

A ``Result`` holds one answer, whatever its task: text, boxes, quads or polygons, with labels, scores and the tokens it was read from.
``objects`` lists what was found, ``draw`` is a drawing of it, ``to_dict`` the dictionary that Florence-2's clients parse,
``to_supervision`` and ``to_coco`` what other libraries take. A result is a plain value: it can be compared, pickled and written as JSON,
and knows neither model nor tokenizer. The image of the request is no part of the value: the result refers to it, and leaves it behind
when it is pickled.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import InitVar, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from florence2.answer_fields import Unreadable, answer_fields, size_of, unwrapped
from florence2.errors import InvalidOption
from florence2.location_bins import middle
from florence2.outlines import Box, Outline, box_around, corners
from florence2.timing import Timing

if TYPE_CHECKING:
    from typing import Self

    from PIL.Image import Image
    from supervision import Detections  # pyright: ignore[reportMissingImports]

    from florence2.draw import FontInput
    from florence2.images import ImageInput
    from florence2.interchange.classed import Classes, Coordinates
    from florence2.sources import Source

Kind = Literal["text", "boxes", "quads", "polygons", "boxes_or_polygons"]
FinishReason = Literal["stop", "length"]
Quad = tuple[float, float, float, float, float, float, float, float]
Form = Literal["box", "quad", "polygons"]


@dataclass(frozen=True)
class FoundObject:
    """One object of an answer, in pixels of the original image, x before y.

    Attributes:
        label: Its name, or the text that was read; empty where the task gives none.
        box: x1, y1, x2, y2; of a quad or of polygons the smallest box around them.
        quad: The four corners x1, y1, x2, y2, x3, y3, x4, y4, where the task gives quads; else None.
        polygons: Its polygons, each a flat x, y, x, y, …, where the task gives polygons; else empty.
        score: How likely it is right, 0 to 1; None where the request did not ask for scores, as for the next two.
        label_score: Exp of the mean log-probability of its label's tokens; None without a label too.
        location_score: The same of its location tokens.
    """

    label: str
    box: Box
    quad: Quad | None = None
    polygons: tuple[Outline, ...] = ()
    score: float | None = None
    label_score: float | None = None
    location_score: float | None = None

    @property
    def kind(self) -> Form:
        """Which of the three the task gave."""
        return "polygons" if self.polygons else "box" if self.quad is None else "quad"

    @property
    def outlines(self) -> tuple[Outline, ...]:
        """Closed outlines, each a flat x, y, x, y, …: the corners of the box or quad, or the polygons."""
        return self.polygons or (self.quad or corners(self.box),)

    def unrounded(self, bins: list[Any], image_size: tuple[int, int]) -> FoundObject:
        """The same object, its coordinates the unrounded middles of its location bins.

        Args:
            bins: its bins, as ``Result.bins`` has them.
            image_size: Width and height of the original image in pixels.
        """
        shape = _middles(bins, image_size)
        if self.polygons:
            polygons = tuple(map(tuple, shape))
            return replace(self, box=box_around(polygons), polygons=polygons)
        if self.quad is not None:
            return replace(self, box=box_around((shape,)), quad=tuple(shape))
        return replace(self, box=tuple(shape))


@dataclass(frozen=True)
class Usage:
    """What one answer took, in tokens.

    Attributes:
        num_prompt_tokens: What the model read: the image's tokens and the prompt's, ``<s>`` and ``</s>`` included.
        num_image_tokens: How many of them are the image's.
        num_answer_tokens: What was generated, framing tokens included.
        is_image_cached: The image was encoded already when the request came, and needed no pass through the vision tower.
    """

    num_prompt_tokens: int
    num_image_tokens: int
    num_answer_tokens: int
    is_image_cached: bool


@dataclass(frozen=True, repr=False)
class Result:
    """One answer.

    Coordinates are pixels of the original image, x before y. The lists ``labels``, ``scores`` and ``bins`` run along the
    objects found: the boxes, the quads, or the polygons.

    Attributes:
        task: The one key of ``to_dict``: the task's tag, or what stands for a free prompt.
        kind: What the task answers with; ``boxes_or_polygons`` holds either boxes or polygons.
        image_size: Width and height of the original image in pixels.
        text: The answer's text; for located objects the generated text without its framing tokens.
        raw: The generated text with all special tokens.
        boxes: One [x1, y1, x2, y2] per object.
        quads: One [x1, y1, x2, y2, x3, y3, x4, y4] per object.
        polygons: Per object its polygons, each a flat list x, y, x, y, ...
        labels: One per object, in the order of generation.
        bins: The location bins (thousandths of width and height) as generated, nested like the coordinates. Of an answer that was asked in
            tiles they are fractions, as tiles are read more finely than the whole picture.
        scores: Per object how likely it is right, 0 to 1: its label score times the probability that its box or outline overlaps
            enough with the true one; None where the request did not ask for scores.
        label_scores: Per object exp of the mean log-probability of its label's tokens; None inside for an object without a label.
        location_scores: The same of its location tokens: how probable these very bins are, which is little however sure the model is.
        token_ids: What was generated, the framing tokens included.
        finish_reason: ``stop`` when the model ended its answer, ``length`` when the token limit did.
        log_probability: Sum over the generated tokens; None when not known.
        log_probabilities: One per generated token, before any rule of the search; None when not known.
        usage: What the answer took; None where no engine made the result. It counts for no comparison.
        timing: Where the time went, in seconds; as ``usage``. It is not part of ``to_dict``.
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
    log_probabilities: list[float] | None = None
    usage: Usage | None = field(default=None, compare=False)
    timing: Timing | None = field(default=None, compare=False)
    _source: InitVar[Any] = field(default=None, kw_only=True)  # no field of the value: the image of the request

    def __post_init__(self, _source: Source | None) -> None:
        if _source is not None:
            object.__setattr__(self, "_source", _source)

    def __getstate__(self) -> dict[str, Any]:
        """The value without the picture, which does not travel."""
        state = {name: value for name, value in vars(self).items() if name != "_source"}
        left = None if self.source is None else self.source.without_image()
        return state if left is None else {**state, "_source": left}

    def __copy__(self) -> Self:
        """The same value; unlike a pickled one it stays here, and refers to the same picture."""
        return replace(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """The same value in lists of its own; the picture is referred to, not copied."""
        return replace(self, **{each.name: copy.deepcopy(getattr(self, each.name), memo) for each in fields(self)})

    @property
    def objects(self) -> tuple[FoundObject, ...]:
        """The objects found, in the order of generation; none in a text answer.

        Made of the lists as they are now. A label or score that is missing there is empty or None; an object without a point is left out.
        """
        return tuple(_objects(self))

    @property
    def _shapes(self) -> list[Any]:
        """The boxes, quads or polygons, whichever this answer has."""
        return self.boxes or self.quads or self.polygons

    @property
    def source(self) -> Source | None:
        """The image of the request, as it was given; None where it is not known, as for a result that was pickled or sent."""
        return vars(self).get("_source")

    @classmethod
    def from_dict(cls, answer: Mapping[str, Any], image_size: Sequence[int] | None = None) -> Result:
        """The result behind an answer as a dictionary, so that it can be drawn.

        Args:
            answer: what ``to_dict`` or ``florence2.parse`` gave, the whole JSON of a server's answer about one image and one prompt, or a
                line of ``florence2 infer --json``.
            image_size: Width and height of the original image in pixels; the last two hold them.

        Raises:
            InvalidOption: it has not the form of an answer, holds what is no coordinate or score, or ``image_size`` is missing.
        """
        try:
            response, said, more = unwrapped(answer)
            ((task, value),) = response.items()
            found = answer_fields(value)
        except Unreadable as error:
            raise InvalidOption(f"the answer can't be read: {error}", field="answer") from None
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            wanted = "an answer is a dictionary with one key, its task, as to_dict gives it, or a server's answer to one prompt"
            hint = "; of an answer to several give each item of its 'response', and image_size"
            raise InvalidOption(f"{wanted}{hint}; got {repr(answer)[:200]}", field="answer") from error
        size = size_of(said if image_size is None else image_size)
        return Result(**{"task": str(task), "image_size": size, "raw": "", **found, **more})

    def draw(self, source: ImageInput | None = None, *, font: FontInput | None = None) -> Image:
        """The picture with this answer drawn on it.

        Args:
            source: the image of the request, as ``florence2.draw.annotate`` takes it; None for the one that the result refers to.
            font: a font file, or what ``PIL.ImageFont.truetype`` gives, which is tried first for each letter.

        Raises:
            InvalidImage: the picture can't be read, has another size, was changed since, or is not held by this result.
            InvalidOption: ``font`` is no font.
        """
        from florence2.draw import annotate

        return annotate(source, self, font=font)

    annotate = draw  # its earlier name

    def show(self, source: ImageInput | None = None, *, font: FontInput | None = None) -> None:
        """Show the drawn answer: in the notebook, in the system's viewer, or as a file whose path is printed.

        Arguments and errors are those of ``draw``.
        """
        from florence2.draw.display import show

        show(self.draw(source, font=font))

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        """What a notebook shows: the drawn picture beside the answer, or the answer alone where the picture is not at hand."""
        from florence2.draw.display import mimebundle

        return mimebundle(self)

    def to_dict(self, scores: bool | None = None, coordinates: Literal["int", "float"] = "int") -> dict[str, Any]:
        """The reference's dictionary: one key, the task, and under it a string or the objects found.

        Args:
            scores: Whether ``scores`` stands beside the objects; None means if there are any. A text answer never has them.
            coordinates: ``int`` for whole pixels as in the reference; ``float`` for the unrounded middle of each bin.

        Raises:
            InvalidOption: Scores that the request did not ask for, unrounded coordinates that are not known, or another word
                for ``coordinates``.
        """
        if coordinates not in ("int", "float"):
            raise InvalidOption(f"coordinates must be 'int' or 'float'; got {coordinates!r}", field="coordinates")
        if self.kind == "text":
            return {self.task: self.text}
        answer = self._answer(self._unrounded() if coordinates == "float" else _copied(self._shapes))
        if scores and self.scores is None:
            raise InvalidOption("this result has no scores; ask for them in the request with scores=True", field="scores")
        if self.scores is not None and scores is not False:
            answer["scores"] = list(self.scores)
        return {self.task: answer}

    def to_supervision(self, classes: Classes | None = None, coordinates: Coordinates = "int") -> Detections:
        """The objects as ``supervision.Detections``, one row an object, with ``data["class_name"]``; of an answer without any an empty one.

        Polygons become masks of the picture's size, one byte a pixel and object; quads are in ``data["xyxyxyxy"]``, scores in
        ``confidence``. The region that ``<REGION_TO_CATEGORY>`` was asked about is one row.

        Args:
            classes: the names of the classes, whose indices become the class ids, or ids by names; objects of other classes are left out.
                Case does not matter; a single class is also that of objects without a label. None numbers the labels of this answer in
                the order in which they come.
            coordinates: as in ``to_dict``.

        Raises:
            InvalidOption: a text has no detections; ``classes`` are no names; unrounded coordinates are not known.
            MissingExtra: the package ``supervision`` is not installed.
        """
        from florence2.interchange.detections import detections_of

        return detections_of(self, classes, coordinates)

    def to_coco(
        self, image_id: int = 1, annotation_id: int = 1, *, classes: Classes | None = None, coordinates: Coordinates = "int"
    ) -> dict[str, Any]:
        """The answer as a COCO data set of one image: ``images``, ``annotations`` and ``categories``.

        Its annotations alone are a list of results for ``pycocotools``' ``loadRes``. Polygons and quads are in ``segmentation``, scores in
        ``score``; a text is a caption, without categories.

        Args:
            image_id: The image's id.
            annotation_id: The id of the first annotation; the next ones count on from there.
            classes: As in ``to_supervision``, but names are numbered from 1; a region without a label is an ``object``.
            coordinates: as in ``to_dict``.

        Raises:
            InvalidOption: an id is no whole number; ``classes`` are no names; unrounded coordinates are not known.
        """
        from florence2.interchange.coco import coco_of

        return coco_of(self, image_id, annotation_id, classes, coordinates)

    def _unrounded(self) -> list[Any]:
        """The coordinates by their bins, or as they came where they came unrounded."""
        found = self._shapes
        if len(self.bins) == len(found):
            return _middles(self.bins, self.image_size)
        if are_whole(found):
            raise InvalidOption(
                "this result has whole coordinates only (it was made of a dictionary, or its objects were changed): take them of the "
                "engine's own result, or ask the server with coordinates='float'",
                field="coordinates",
            )
        return _copied(found)

    def _answer(self, found: list[Any]) -> dict[str, Any]:
        """The task's dictionary with these coordinates, without scores."""
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


def _objects(result: Result) -> Iterator[FoundObject]:
    form: Form = "box" if result.boxes else "quad" if result.quads else "polygons"
    for index, shape in enumerate(result._shapes):
        lists = (result.labels, result.scores, result.label_scores, result.location_scores)
        label, *scores = (None if values is None or index >= len(values) else values[index] for values in lists)
        found = object_of(form, str(label or ""), shape, *scores)
        if found is not None:
            yield found


def object_of(form: Form, label: str, shape: Sequence[Any], *scores: Any) -> FoundObject | None:
    """An object by the coordinates that a result has for it; None without a point.

    Args:
        form: which of a result's lists has it.
        label: its label.
        shape: the box or quad, or the polygons.
        scores: its score, label score and location score, where there are any.
    """
    polygons = tuple(map(tuple, shape)) if form == "polygons" else ()
    outlines = polygons or (tuple(shape),)
    if max(map(len, outlines)) < 2:
        return None
    box = outlines[0] if form == "box" else box_around(outlines)
    return FoundObject(label, box, outlines[0] if form == "quad" else None, polygons, *scores)  # type: ignore[arg-type]


def _middles(bins: list[Any], image_size: tuple[int, int]) -> list[Any]:
    if bins and not isinstance(bins[0], list):
        return [middle(value, image_size[index % 2]) for index, value in enumerate(bins)]
    return [_middles(inner, image_size) for inner in bins]


def are_whole(nested: Any) -> bool:
    """Whether nested coordinates are whole pixels."""
    return any(map(are_whole, nested)) if isinstance(nested, list) else isinstance(nested, int)


def _copied(nested: Any) -> Any:
    return [_copied(inner) for inner in nested] if isinstance(nested, list) else nested


def _shortened(shown: str, limit: int) -> str:
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."
