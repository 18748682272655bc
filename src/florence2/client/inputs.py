"""What a caller gives as an image, made into what travels.

``identify`` says at once, before anything is sent, what kind of thing it is and refuses what can be none. ``encode`` reads and
encodes it: files and bytes travel as they are, metadata included, unless a limit has them scaled down. Fetching URLs is left to
the caller of this module.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from florence2.client import pictures
from florence2.client.configuration import InferenceConfiguration
from florence2.client.errors import InvalidInput
from florence2.client.pictures import Size
from florence2.image_files.base64_text import decode_base64, without_prefix
from florence2.images import size_of
from florence2.images.kinds import ImageInput, kind_of_input, kind_of_text
from florence2.images.messages import is_folder, no_file, not_a_file_url, shown, type_of, unreadable
from florence2.sources import Source as RememberedSource
from florence2.sources import remember

ImageList = list[Any] | tuple[Any, ...]
ImageInputs = ImageInput | ImageList


@dataclass(frozen=True)
class Source:
    """One image as it was given, and what it was found to be."""

    kind: Literal["file", "url", "base64", "bytes", "picture", "array"]
    value: Any


@dataclass(frozen=True)
class Encoded:
    """One image as it travels.

    Attributes:
        as_json: the object of type and value.
        original_size: width and height before scaling; None where nothing was scaled.
        sent_size: width and height after it.
        remembered: what its answer remembers of it; None for nothing.
    """

    as_json: dict[str, str]
    original_size: Size | None = None
    sent_size: Size | None = None
    remembered: RememberedSource | None = None


def is_many(given: object) -> bool:
    """Whether several images were given."""
    return isinstance(given, (list, tuple))


def flattened(given: Sequence[Any]) -> list[Any]:
    """The images of a list, and of the lists in it, in order."""
    return [inner for item in given for inner in (flattened(item) if is_many(item) else [item])]


def identify(given: Any) -> Source:
    """What was given.

    Raises:
        InvalidInput: a file that is not there, a folder, a text that is no image, or another type.
    """
    kind = kind_of_input(given)
    if kind is None:
        raise _invalid(
            f"an image must be a path, URL, base64 text, bytes, a Pillow image, a numpy array or a torch tensor, got {type_of(given)}"
        )
    if kind == "bytes":
        return Source("bytes", bytes(given))
    if kind == "path":
        return Source("file", _existing(os.fsdecode(given)))
    if kind == "tensor":
        return Source("picture", pictures.from_tensor(given))
    return _identify_text(given) if kind == "text" else Source(kind, given)


def encode(source: Source, configuration: InferenceConfiguration, fetched: bytes | None = None) -> Encoded:
    """An image as it travels; reads files and blocks while it encodes.

    Args:
        source: what ``identify`` gave.
        configuration: limits, quality, and the order of an array's channels.
        fetched: what a URL led to; without it the URL itself travels.

    Raises:
        InvalidInput: a file that can't be read, an image that can't be encoded or is above ``max_image_bytes``.
    """
    if source.kind == "url" and fetched is None:
        return Encoded({"type": "url", "value": source.value})
    if source.kind == "picture":
        return _encode_picture(source.value, configuration)
    if source.kind == "array":
        return _encode_picture(pictures.from_array(source.value, configuration.array_channels), configuration)
    if source.kind == "base64":
        return _encode_base64(source.value, configuration)
    data = _read(source.value) if source.kind == "file" else fetched if fetched is not None else source.value
    if not data:
        raise _invalid(f"{_name(source)} holds no image: it is empty")
    return _encode_file(data, configuration, _name(source))


def remembered(source: Source, configuration: InferenceConfiguration) -> RememberedSource | None:
    """What an answer remembers of its image: a file's path; of others whether their pixels count as stored, to draw on them rightly."""
    auto_orient = not configuration.disable_preproc_auto_orientation
    if source.kind == "file":
        return remember(source.value, auto_orient)
    in_memory = source.kind in ("picture", "array")
    return (remember(source.value) if in_memory else RememberedSource(None, auto_orient)).without_image()


def _identify_text(text: str) -> Source:
    kind = kind_of_text(text)
    if kind == "url" and text.lower().startswith(("http://", "https://")):
        return Source("url", text)
    if kind in ("data_uri", "base64"):
        return Source("base64", text)
    if kind == "file_url":
        raise _invalid(not_a_file_url(text))
    if not text:
        raise _invalid("an image must be a path, URL or base64 text, got an empty string")
    return Source("file", _existing(text))


def _existing(path: str) -> str:
    """A path, if there is a file."""
    if os.path.isdir(path):
        raise _invalid(is_folder(path))
    if not os.path.exists(path):
        raise _invalid(no_file(path, " (nor is it a URL or the base64 of an image)"))
    return path


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise _invalid(unreadable(path, error)) from error


def _encode_picture(picture: Image.Image, configuration: InferenceConfiguration) -> Encoded:
    """Pillow images and arrays are taken as they are: coordinates count in their own pixels, whatever their EXIF says."""
    if not configuration.client_downsizing_disabled:
        return _encode_shrunk(picture, configuration)
    data = pictures.to_jpeg(picture, configuration.jpeg_quality)
    _check_bytes(len(data), configuration, "the picture")
    return Encoded(_base64(data))


def _encode_file(data: bytes, configuration: InferenceConfiguration, name: str) -> Encoded:
    """A file as it is where it keeps to the limits; else scaled down, upright, or refused."""
    if configuration.client_downsizing_disabled:
        _check_bytes(len(data), configuration, name)
        return Encoded(_base64(data))
    limit = configuration.max_image_bytes
    size = size_of(data)
    has_size = size is None or max(size) <= configuration.default_max_input_size
    if has_size and (limit is None or len(data) <= limit):
        return Encoded(_base64(data))
    auto_orient = not configuration.disable_preproc_auto_orientation
    return _encode_shrunk(pictures.read(data, auto_orient=auto_orient), configuration)


def _encode_base64(text: str, configuration: InferenceConfiguration) -> Encoded:
    """Base64 travels as it was given, unless a limit has to be kept."""
    if configuration.client_downsizing_disabled and configuration.max_image_bytes is None:
        return Encoded({"type": "base64", "value": text})
    encoded = _encode_file(_decoded(text), configuration, "the base64 image")
    return encoded if encoded.sent_size else Encoded({"type": "base64", "value": text})


def _encode_shrunk(picture: Image.Image, configuration: InferenceConfiguration) -> Encoded:
    data, size = pictures.shrink(
        picture,
        max_side=configuration.default_max_input_size,
        max_bytes=configuration.max_image_bytes,
        quality=configuration.jpeg_quality,
    )
    return Encoded(_base64(data)) if size == picture.size else Encoded(_base64(data), original_size=picture.size, sent_size=size)


def _decoded(text: str) -> bytes:
    """The bytes of base64 text or of a data URI."""
    try:
        return decode_base64(without_prefix(text))
    except ValueError as error:
        raise _invalid(f"the base64 image can't be decoded: {error}") from error


def _check_bytes(num_bytes: int, configuration: InferenceConfiguration, name: str) -> None:
    limit = configuration.max_image_bytes
    if limit is not None and num_bytes > limit:
        raise _invalid(
            f"{name} has {num_bytes} bytes, more than max_image_bytes={limit}; "
            "client_downsizing_disabled=False has images scaled down to fit"
        )


def _base64(data: bytes) -> dict[str, str]:
    return {"type": "base64", "value": base64.b64encode(data).decode("ascii")}


def _name(source: Source) -> str:
    """What messages call an image."""
    return {"file": "the file ", "url": "the URL "}[source.kind] + shown(source.value) if source.kind in ("file", "url") else "the image"


def _invalid(message: str) -> InvalidInput:
    return InvalidInput(message, field="image")
