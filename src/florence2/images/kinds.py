"""What kind of thing was given as an image, told by its type, and of a text by how it begins.

In: what a caller gave. Out: the name of its kind. Nothing is opened or decoded; what follows from a kind is the caller's decision.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from florence2.image_files import is_picture


class TensorLike(Protocol):
    """A tensor of PyTorch, as far as pictures need it."""

    def detach(self) -> Any:
        """The tensor without its history."""
        ...


ImageInput = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | NDArray[Any] | TensorLike
InputKind = Literal["picture", "array", "tensor", "bytes", "path", "text"]
TextKind = Literal["data_uri", "file_url", "url", "base64", "path"]

_TYPES: tuple[tuple[InputKind, type[Any] | tuple[type[Any], ...]], ...] = (
    ("picture", Image.Image),
    ("array", np.ndarray),
    ("bytes", (bytes, bytearray, memoryview)),
    ("path", os.PathLike),
    ("text", str),
)
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):/", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-=\s]+")
_MIN_BASE64_CHARS = 32
_START_CHARS = 128  # of base64 text, enough to tell every format


def kind_of_input(value: object) -> InputKind | None:
    """The kind of a value by its type; None for a type that is no image."""
    for kind, types in _TYPES:
        if isinstance(value, types):
            return kind
    return "tensor" if _is_tensor(value) else None


def _is_tensor(value: object) -> bool:
    """Whether a value is a tensor of PyTorch, which is not imported for that."""
    return any((kind.__module__, kind.__name__) == ("torch", "Tensor") for kind in type(value).__mro__)


def kind_of_text(text: str) -> TextKind:
    """The kind of a text: ``path`` for all that is not known to be anything else, whether there is such a file or not."""
    start = text[:64].lstrip()
    if start[:5].lower() == "data:":
        return "data_uri"
    if start[:5].lower() == "file:":
        return "file_url"
    if (match := _SCHEME.match(start)) and len(match[1]) > 1:  # one letter is a drive
        return "url"
    return "base64" if _is_base64_image(text) else "path"


def _is_base64_image(text: str) -> bool:
    """Whether a text is the base64 of a picture, told by how the picture begins, the alphabet and the length."""
    if len(text) < _MIN_BASE64_CHARS:
        return False
    start = re.sub(r"\s", "", text[: 2 * _START_CHARS])[:_START_CHARS].rstrip("=").replace("-", "+").replace("_", "/")
    try:
        head = base64.b64decode(start[: len(start) // 4 * 4])
    except (binascii.Error, ValueError):
        return False
    return is_picture(head) and _BASE64.fullmatch(text) is not None and not os.path.exists(text)
