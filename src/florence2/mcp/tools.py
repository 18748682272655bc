"""The five tools: what each takes, which prompts that makes, and what it answers with.

In: the arguments of a call. Out: parsed prompts for the engine, and of its results a typed answer. Names, descriptions and parameters are
read by models, which choose by them. Knows nothing of engines and of the protocol.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from florence2.draw.marks import words_of
from florence2.errors import InvalidRequest
from florence2.mcp.answers import AnyAnswer, DetectedAnswer, FoundAnswer, ReadAnswer, TextAnswer, facts, found_in
from florence2.results import Result
from florence2.tasks.prompt import Prompt, parse_prompt, read_pixels

MAX_CLASSES = 20
MAX_TEXT_CHARS = 2000


def _read_list(value: Any) -> Any:
    """A list that came as JSON in a string, as some hosts send it."""
    if isinstance(value, str):
        with suppress(ValueError, RecursionError):
            read = json.loads(value)
            return read if isinstance(read, list) else value
    return value


def _read_classes(value: Any) -> Any:
    """Names of classes, also from one string with commas."""
    value = _read_list(value)
    return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


def _read_region(value: Any) -> Any:
    """Four numbers, also from one string."""
    value = _read_list(value)
    if isinstance(value, str):
        with suppress(ValueError):
            return read_pixels(value)
    return value


Image = Annotated[
    str,
    Field(
        description="The image: an absolute path of a local file in a folder that the user allowed (or a path relative to that folder), "
        "an https:// URL, or a data: URI (data:image/png;base64,…)."
    ),
]
Region = Annotated[
    list[float] | None,
    Field(
        min_length=4,
        max_length=4,
        description="A rectangle x1, y1, x2, y2 in pixels of the image (left, top, right, bottom; upper left corner is 0, 0).",
    ),
    BeforeValidator(_read_region),
]
Draw = Annotated[
    bool, Field(description="Also return the image with the answer drawn on it, scaled down to at most 1024 pixels, to look at or show.")
]
Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_TEXT_CHARS)]


class Tool(BaseModel):
    """One tool; an instance holds the arguments of one call.

    Attributes:
        name: what hosts call it.
        title: its name for people.
        description: what it gives and when to use it, for models.
        answer_type: of what the output schema is made.
        options: options of the engine for every call.
    """

    model_config = ConfigDict(extra="forbid")
    name: ClassVar[str]
    title: ClassVar[str]
    description: ClassVar[str]
    answer_type: ClassVar[type[BaseModel]]

    image: Image
    draw: Draw = False

    @property
    def options(self) -> dict[str, Any]:
        """The engine's options for this call."""
        return {}

    def prompts(self) -> list[Prompt]:
        """The prompts about the image.

        Raises:
            InvalidRequest: the arguments do not go together.
        """
        raise NotImplementedError

    def answer(self, results: Sequence[Result], model: str) -> Any:
        """The answer that the results are, in their order."""
        raise NotImplementedError


class Caption(Tool):
    """Describes an image, or a part of it."""

    name = "caption"
    title = "Describe an image"
    description = (
        "Describe what an image shows, in English. `detail` chooses between one short sentence, a few sentences, and a paragraph. With "
        "`region`, only that part of the image is described in a few words. Use it to find out what an image is about; use `detect` for "
        "where things are and `read_text` for text in it."
    )
    answer_type = TextAnswer

    detail: Annotated[
        Literal["short", "detailed", "paragraph"],
        Field(description="short: one sentence. detailed: a few. paragraph: as much as the model can say. Without effect on a region."),
    ] = "detailed"
    region: Region = None

    def prompts(self) -> list[Prompt]:
        """The caption's prompt of this detail, or that about the region."""
        if self.region is not None:
            return [parse_prompt("<REGION_TO_DESCRIPTION>", region=self.region)]
        tags = {"short": "<CAPTION>", "detailed": "<DETAILED_CAPTION>", "paragraph": "<MORE_DETAILED_CAPTION>"}
        return [parse_prompt(tags[self.detail])]

    def answer(self, results: Sequence[Result], model: str) -> TextAnswer:
        """The caption."""
        return TextAnswer(**facts(results, model), text=words_of(results[0]))


CLOSER = "3x3"
"""The tiles that an image is also looked at in, where a call asks for that."""


class Detect(Tool):
    """Locates objects with boxes."""

    name = "detect"
    title = "Find objects"
    description = (
        "Locate objects in an image. Gives each object's label, its box x1, y1, x2, y2 in pixels, and a score from 0 to 1. Without "
        "`classes` and `sentence` all objects of common categories are found. With `classes` only those are looked for, and they may be "
        'any words ("a red car", "traffic light"), each with about one box or several. With `sentence`, the phrases of a sentence about '
        "the image are located. The model seldom says that a class is absent: judge by the score whether it is really there. Use "
        "`segment` for exact outlines."
    )
    answer_type = DetectedAnswer

    classes: Annotated[
        list[Words] | None,
        Field(min_length=1, max_length=MAX_CLASSES, description="What to look for, in English: one name or short phrase for each class."),
        BeforeValidator(_read_classes),
    ] = None
    sentence: Annotated[Words | None, Field(description="A sentence whose phrases are to be located. Not together with classes.")] = None
    labels: Annotated[
        Literal["category", "description", "none"],
        Field(
            description="For all objects: category names them (car), description describes each in words (white car on the left), none "
            "only proposes boxes. Without effect on classes and sentence."
        ),
    ] = "category"
    closer: Annotated[
        bool,
        Field(description="Look at 3 x 3 parts of the image, too: finds small things in large images, about ten times as slow."),
    ] = False

    @property
    def options(self) -> dict[str, Any]:
        """With scores, and in tiles where that is asked for."""
        return {"scores": True, **({"tiles": CLOSER} if self.closer else {})}

    def prompts(self) -> list[Prompt]:
        """A prompt for each class, or the one for all objects or phrases."""
        if self.classes is not None and self.sentence is not None:
            raise InvalidRequest("classes and sentence were both given; give one of them", field="classes")
        if self.classes is not None:
            return [parse_prompt("<OPEN_VOCABULARY_DETECTION>", text=name) for name in self.classes]
        if self.sentence is not None:
            return [parse_prompt("<CAPTION_TO_PHRASE_GROUNDING>", text=self.sentence)]
        tags = {"category": "<OD>", "description": "<DENSE_REGION_CAPTION>", "none": "<REGION_PROPOSAL>"}
        return [parse_prompt(tags[self.labels])]

    def answer(self, results: Sequence[Result], model: str) -> DetectedAnswer:
        """The objects found."""
        not_found = None
        if self.classes is not None:
            not_found = [name for name, result in zip(self.classes, results, strict=True) if not result.objects]
        return DetectedAnswer(**facts(results, model), objects=found_in(results), not_found=not_found)


class Segment(Tool):
    """Outlines one thing with polygons."""

    name = "segment"
    title = "Outline an object"
    description = (
        "Outline one thing in an image exactly: what `phrase` names, or what lies in the rectangle `region`. Give one of the two. Gives "
        "polygons in pixels (flat lists x, y, x, y, …), the box around them and a score. Use `detect` first where a box is not known or "
        "is enough."
    )
    answer_type = FoundAnswer

    phrase: Annotated[Words | None, Field(description='What to outline, in English, such as "the dog on the left".')] = None
    region: Region = None

    @property
    def options(self) -> dict[str, Any]:
        """With scores."""
        return {"scores": True}

    def prompts(self) -> list[Prompt]:
        """The prompt about the phrase or the region."""
        if (self.phrase is None) == (self.region is None):
            raise InvalidRequest("give either phrase (what to outline) or region [x1, y1, x2, y2] in pixels", field="phrase")
        if self.phrase is not None:
            return [parse_prompt("<REFERRING_EXPRESSION_SEGMENTATION>", text=self.phrase)]
        return [parse_prompt("<REGION_TO_SEGMENTATION>", region=self.region)]

    def answer(self, results: Sequence[Result], model: str) -> FoundAnswer:
        """The outlines, which the model does not name."""
        objects = [found.model_copy(update={"label": found.label or self.phrase or ""}) for found in found_in(results)]
        return FoundAnswer(**facts(results, model), objects=objects)


class ReadText(Tool):
    """Reads printed or written text."""

    name = "read_text"
    title = "Read text"
    description = (
        "Read the text in an image (OCR). Gives the text; with `places: true` also each piece of it with its four corners in pixels and a "
        "score, and line breaks between the pieces. With `region` only the text in that rectangle is read. Small print of a large page is "
        "read better with `closer: true`."
    )
    answer_type = ReadAnswer

    places: Annotated[bool, Field(description="Also tell where each piece of text stands.")] = False
    region: Region = None
    closer: Annotated[
        bool,
        Field(description="Look at 3 x 3 parts of the image, too: reads small print of large images, about ten times as slow."),
    ] = False

    @property
    def options(self) -> dict[str, Any]:
        """With scores of the places, and in tiles where that is asked for."""
        return {"scores": self.places, **({"tiles": CLOSER} if self.closer else {})}

    def prompts(self) -> list[Prompt]:
        """The prompt for the whole image, or for the region."""
        if self.region is not None and self.places:
            raise InvalidRequest("places and region were both given: leave places out, the text of a region has one place", field="places")
        if self.region is not None and self.closer:
            raise InvalidRequest("closer and region were both given: leave closer out, a region is read by itself", field="closer")
        if self.region is not None:
            return [parse_prompt("<REGION_TO_OCR>", region=self.region)]
        return [parse_prompt("<OCR_WITH_REGION>" if self.places else "<OCR>")]

    def answer(self, results: Sequence[Result], model: str) -> ReadAnswer:
        """The text."""
        lines = found_in(results) if self.places else None
        text = words_of(results[0]) if lines is None else "\n".join(line.label for line in lines)
        return ReadAnswer(**facts(results, model), text=text, lines=lines)


class Ask(Tool):
    """Gives any prompt to the model."""

    name = "ask"
    title = "Ask the model anything it knows"
    description = (
        "Give the model a prompt of its own: a task tag of Florence-2 such as `<OD>`, `<REGION_TO_CATEGORY>` or `<REGION_PROPOSAL>`, "
        "or free text. For what the other tools do not offer, and for fine-tuned models with prompts of their own. This is no chat model: "
        'the published models answer tags only, and free questions ("How many dogs?") well only where the model was fine-tuned for them.'
    )
    answer_type = AnyAnswer

    prompt: Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARS, description="A task tag in angle brackets, or free text.")]
    text: Annotated[Words | None, Field(description="The text that the task needs, such as the phrase to look for.")] = None
    region: Region = None
    max_new_tokens: Annotated[int | None, Field(ge=1, description="The longest answer in tokens; the model's own limit if left out.")] = (
        None
    )
    allow_unknown_tag: Annotated[bool, Field(description="Take a prompt with an unknown tag as it is: a fine-tuned model's own tag.")] = (
        False
    )

    @property
    def options(self) -> dict[str, Any]:
        """With scores, and what the caller sets."""
        return {"scores": True, "max_new_tokens": self.max_new_tokens, "allow_unknown_tag": self.allow_unknown_tag}

    def prompts(self) -> list[Prompt]:
        """The prompt, with its text or region."""
        return [parse_prompt(self.prompt, text=self.text, region=self.region, allow_unknown_tag=self.allow_unknown_tag)]

    def answer(self, results: Sequence[Result], model: str) -> AnyAnswer:
        """The text or the objects."""
        (result,) = results
        is_text = result.kind == "text"
        text, objects = (words_of(result), None) if is_text else (None, found_in(results))
        return AnyAnswer(**facts(results, model), task=result.task, text=text, objects=objects)


TOOLS: dict[str, type[Tool]] = {tool.name: tool for tool in (Caption, Detect, Segment, ReadText, Ask)}
"""All tools by name."""
