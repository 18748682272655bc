"""What servers answer, as values.

``Answer`` is a ``Result`` made of the JSON; ``ServerInfo`` and ``RegisteredModels`` are what the management calls give.
``scaled_back`` moves the coordinates of an answer about a scaled picture to the original. Reads any server's answers: what an
older one does not send has its default.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from florence2.answer_fields import answer_fields, generated_fields
from florence2.client.errors import InvalidParameter, UnexpectedAnswer
from florence2.client.pictures import Size
from florence2.results import FoundObject, Result, Usage, are_whole

if TYPE_CHECKING:
    from typing import Self

    from florence2.sources import Source

# How an answer calls the shapes of objects, and how an object that is reported alone calls its own; the box is there with every shape.
_SHAPES = (("polygons", "polygons"), ("quad_boxes", "quad"), ("bboxes", "box"))
_COORDINATES = ("bboxes", "quad_boxes", "polygons")
# What the known client makes of these names by itself: a server may list a model under either.
_RESOLVED = {"florence-2-base": "florence-pretrains/3", "florence-2-large": "florence-pretrains/4"}


@dataclass(frozen=True, repr=False)
class Answer(Result):
    """One answer of a server; everything a ``Result`` has, and what the server said besides.

    ``raw``, ``token_ids``, ``finish_reason`` and ``log_probability`` are filled if the call asked for ``raw=True`` and the server
    offers it, ``usage`` if it asked for ``usage=True``; otherwise they keep their defaults (``finish_reason`` ``stop``). There are no
    ``bins``. With ``coordinates="float"`` coordinates are floats.

    Attributes:
        inference_id: the server's name for the call.
        time_s: what the server took, in seconds.
        response: the task's dictionary as the server sent it.
    """

    inference_id: str = ""
    time_s: float = 0.0
    response: dict[str, Any] = field(default_factory=dict)

    def to_dict(self, scores: bool | None = None, coordinates: Literal["int", "float"] = "int") -> dict[str, Any]:
        """The task's dictionary, its coordinates as they came.

        Args:
            scores: as in ``Result.to_dict``.
            coordinates: ``float`` makes sure that they are unrounded, which the call has to have requested.

        Raises:
            InvalidParameter: unrounded coordinates of an answer that has whole ones, or another word for ``coordinates``.
        """
        if coordinates == "float" and are_whole([self.boxes, self.quads, self.polygons]):
            raise InvalidParameter("this answer has whole coordinates; ask for coordinates='float' in the call", field="coordinates")
        return super().to_dict(scores, coordinates)


@dataclass(frozen=True)
class _Described(ABC):
    """What a server says of itself, as dictionary and JSON, with the names that the known client's entities have."""

    @classmethod
    @abstractmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Of the server's fields."""

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Of the server's JSON."""
        return cls.from_dict(json.loads(text))

    def to_dict(self) -> dict[str, Any]:
        """As a dictionary."""
        return asdict(self)

    def to_json(self, **options: Any) -> str:
        """As JSON; ``options`` are those of ``json.dumps``."""
        return json.dumps(self.to_dict(), **options)


@dataclass(frozen=True)
class ServerInfo(_Described):
    """What a server says about itself."""

    name: str
    version: str
    uuid: str

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ServerInfo:
        """Of the server's JSON; what it leaves out is empty."""
        return cls(*(str(fields.get(name) or "") for name in ("name", "version", "uuid")))


@dataclass(frozen=True)
class ModelDescription(_Described):
    """One model that a server has loaded.

    Attributes:
        request_aliases: its other names.
        request_paths: the paths under which it answers.
    """

    model_id: str
    task_type: str
    batch_size: int | str | None = None
    input_height: int | None = None
    input_width: int | None = None
    request_aliases: list[str] = field(default_factory=list)
    request_paths: list[str] = field(default_factory=list)

    def is_called(self, model_id: str) -> bool:
        """Whether a name is one of the model's."""
        return any(are_same(model_id, name) for name in (self.model_id, *self.request_aliases))

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ModelDescription:
        """Of the server's JSON; fields that are not known are left out."""
        return cls(
            model_id=str(fields["model_id"]),
            task_type=str(fields.get("task_type") or ""),
            batch_size=fields.get("batch_size"),
            input_height=fields.get("input_height"),
            input_width=fields.get("input_width"),
            request_aliases=list(fields.get("request_aliases") or ()),
            request_paths=list(fields.get("request_paths") or ()),
        )


@dataclass(frozen=True)
class RegisteredModels(_Described):
    """The models that a server has loaded."""

    models: list[ModelDescription]

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> RegisteredModels:
        """Of the server's JSON."""
        return cls([ModelDescription.from_dict(model) for model in fields["models"]])


def are_same(model_id: str, other: str) -> bool:
    """Whether two ids name one model."""
    return _RESOLVED.get(model_id, model_id) == _RESOLVED.get(other, other)


def typed(answer: Mapping[str, Any], source: Source | None = None) -> Answer | list[Answer]:
    """An image's answer as ``Answer``; a list of them where the call had several prompts.

    Args:
        answer: the server's JSON.
        source: what is remembered of the image; None for nothing.

    Raises:
        UnexpectedAnswer: the JSON is not an answer about an image.
    """
    try:
        responses, raws, usages = answer["response"], answer.get("raw"), answer.get("usage")
        if isinstance(responses, list):
            count = len(responses)
            return [
                _typed(answer, response, raw, usage, source)
                for response, raw, usage in zip(responses, raws or [None] * count, usages or [None] * count, strict=True)
            ]
        return _typed(answer, responses, raws, usages, source)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise UnexpectedAnswer(f"the answer has not the form of one about an image ({type(error).__name__}: {error})") from error


def scaled_back(answer: Mapping[str, Any], sent: Size, original: Size) -> dict[str, Any]:
    """An answer about a scaled picture with the original's size and coordinates.

    Whole coordinates stay whole: each is the original pixel in the middle of the pixel that the server named.

    Args:
        answer: the server's JSON about one image; left as it is.
        sent: width and height that were sent.
        original: width and height that the caller has.
    """
    ratios = (original[0] / sent[0], original[1] / sent[1])
    responses = answer["response"]
    moved = [_moved(item, ratios) for item in responses] if isinstance(responses, list) else _moved(responses, ratios)
    return {**answer, "image": {"width": original[0], "height": original[1]}, "response": moved}


def scaled_region(region: Any, original: Size, sent: Size) -> Any:
    """A region in the original's pixels, in those of the picture that is sent; tokens are the same in both."""
    if region is None or isinstance(region, str):
        return region
    try:
        return [value * sent[index % 2] / original[index % 2] for index, value in enumerate(region)]
    except TypeError:
        raise InvalidParameter(f"a region is four numbers x1, y1, x2, y2 in pixels, got {region!r:.80}", field="region") from None


def found_object(fields: Mapping[str, Any], sent: Size | None = None, original: Size | None = None) -> FoundObject:
    """An object as a server reports it before the whole answer is there.

    Args:
        fields: its JSON.
        sent: width and height of the picture that was sent, where that was scaled down; as for ``scaled_back``.
        original: width and height that the caller has.

    Raises:
        KeyError, TypeError, ValueError: it is not the JSON of an object.
    """
    name, given = next((names for names in _SHAPES if fields.get(names[1])), _SHAPES[-1])
    value: dict[str, Any] = {name: [fields[given]], "labels": [str(fields["label"])]}
    if fields.get("score") is not None:
        value["scores"] = [fields["score"]]
    if sent and original:
        value = _moved({"": value}, (original[0] / sent[0], original[1] / sent[1]))[""]
    (found,) = Result(task="", image_size=original or (1, 1), raw="", **answer_fields(value)).objects
    return found


def _typed(
    answer: Mapping[str, Any],
    response: dict[str, Any],
    raw: Mapping[str, Any] | None,
    usage: Mapping[str, Any] | None,
    source: Source | None,
) -> Answer:
    ((task, value),) = response.items()
    return Answer(
        **{"raw": "", **answer_fields(value), **generated_fields(raw)},
        task=task,
        image_size=(int(answer["image"]["width"]), int(answer["image"]["height"])),
        inference_id=str(answer.get("inference_id", "")),
        time_s=float(answer.get("time", 0.0)),
        response=response,
        usage=None if usage is None else _usage(usage),
        _source=source,
    )


def _usage(fields: Mapping[str, Any]) -> Usage:
    names = ("prompt_tokens", "image_tokens", "completion_tokens")
    return Usage(*(int(fields[name]) for name in names), is_image_cached=bool(fields["image_cached"]))


def _moved(response: Any, ratios: tuple[float, float]) -> Any:
    """A task's dictionary with its coordinates moved."""
    return {
        task: {name: _scaled(inner, ratios) if name in _COORDINATES else inner for name, inner in value.items()}
        if isinstance(value, dict)
        else value
        for task, value in response.items()
    }


def _scaled(nested: list[Any], ratios: tuple[float, float]) -> list[Any]:
    """Coordinates x, y, x, y, … or lists of such, by the ratios."""
    if nested and isinstance(nested[0], list):
        return [_scaled(inner, ratios) for inner in nested]
    return [
        int((value + 0.5) * ratios[index % 2]) if isinstance(value, int) else value * ratios[index % 2]
        for index, value in enumerate(nested)
    ]
