"""What becomes known of an answer while it is generated: the values that ``stream_lmm`` gives.

Plain values. Nothing takes one back, and the last one is the whole answer. Knows nothing of how they travel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from florence2.client.errors import InferenceError
from florence2.results import FoundObject

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True)
class TextDecided:
    """Text that an answer goes on with; the texts of one prompt about one image, one after the other, are the answer's text.

    Attributes:
        text: at least one character; of tasks that find objects the generated text, location tokens included.
        image_index: which image of the list, from 0.
        prompt_index: which of the prompts, from 0.
    """

    text: str
    image_index: int = 0
    prompt_index: int = 0


@dataclass(frozen=True)
class ObjectFound:
    """An object of an answer that is complete.

    Attributes:
        object: the object, in pixels of the image as it was given.
        object_index: which of the answer's objects it is, from 0.
        image_index: which image of the list, from 0.
        prompt_index: which of the prompts, from 0.
    """

    object: FoundObject
    object_index: int
    image_index: int = 0
    prompt_index: int = 0


@dataclass(frozen=True)
class ImageFailed:
    """The error of one image of a list, with ``on_error="item"``; the others go on.

    Attributes:
        error: the item that the list of answers has in the image's place.
        image_index: which image of the list, from 0.
    """

    error: InferenceError
    image_index: int


@dataclass(frozen=True)
class Done(Generic[T_co]):
    """The whole answer; the last event.

    Attributes:
        answer: what ``infer_lmm`` gives for the same call.
    """

    answer: T_co


LmmEvent = TextDecided | ObjectFound | ImageFailed | Done[T]
