"""Images as clients send them: base64 text, a URL, a path or a part of a form, made into image files.

``FieldImage`` is one image of a request for the inference service, ``read`` the file of an image field with what its structure says.
Knows nothing of models or prompts.
"""

from __future__ import annotations

from florence2.errors import InvalidImage, InvalidRegion, InvalidRequest
from florence2.image_files import PICTURE_NAME, Structure, base64_text, describe, inspect
from florence2.images.messages import shortened
from florence2.server.errors import ImageTooLarge, with_field
from florence2.server.roboflow.refusals import CAUSE, as_input_error, fetch_refusal, refusal
from florence2.server.roboflow.schemas import ImageField
from florence2.server.settings import Settings
from florence2.url_fetch import Fetcher
from florence2.url_policy import FetchError

NUMPY_TYPES = ("numpy", "numpy_object", "pil")
KNOWN_TYPES = ("base64", "url", "file", *NUMPY_TYPES, "multipart")


class FieldImage:
    """One image of a request; an ``ImageSource``.

    Args:
        field: the image as the request holds it.
        index: its index in the list of images; None: the request has one image.
        fetcher: fetches URLs.
        settings: the server's.
    """

    def __init__(self, field: ImageField, index: int | None, fetcher: Fetcher, settings: Settings) -> None:
        kind = field.type.lower()
        self.label = kind if kind in KNOWN_TYPES else "unknown"
        self._field = field
        self._index = index
        self._fetcher = fetcher
        self._settings = settings

    async def fetch(self) -> object:
        """The field's value, or what its URL holds. The request keeps no value that is fetched: it may be many megabytes of text."""
        value = await fetch(self._field, self._fetcher)
        self._field.value = None
        return value

    def read(self, fetched: object) -> Structure:
        """The image file, given what ``fetch`` returned."""
        return read(self._field, fetched, self._settings)

    def describe(self, error: InvalidRequest) -> InvalidRequest:
        """An error about this image as clients know it, naming the image where there are several."""
        if isinstance(error, InvalidImage) and error.field != "tiles":
            error = as_input_error(error)
        if self._index is None or not isinstance(error, (InvalidImage, InvalidRegion)):
            return error
        name = f"image[{self._index}]"
        return with_field(error, name if isinstance(error, InvalidImage) else error.field, f"{name}: ")


async def fetch(image: ImageField, fetcher: Fetcher) -> object:
    """The field's value, or what its URL holds.

    Raises:
        InvalidImage: the URL is malformed or not allowed, or there is no image at it.
        ImageTooLarge: more bytes than are taken.
    """
    if image.type.lower() != "url" or _is_data(image.value):
        return image.value
    try:
        return await fetcher.fetch(image.value)
    except FetchError as error:
        raise fetch_refusal(error) from None


def read(image: ImageField, value: object, settings: Settings) -> Structure:
    """The image file that a field means.

    Args:
        image: the field.
        value: what ``fetch`` gave for it.
        settings: the server's.

    Raises:
        InvalidImage: the field is none of the known kinds, its value is damaged, or this server does not take it.
        ImageTooLarge: more bytes than are taken.
    """
    kind, fault = image.type.lower(), "Malformed base64 input image or file."
    if kind == "base64" or (kind == "url" and _is_data(value)):
        data = decode_base64(value)
    elif kind == "url" or (kind == "multipart" and isinstance(value, bytes)):
        data = value if isinstance(value, bytes) else b""
        fault = "Data is not image." if kind == "url" else fault
    elif kind == "file":
        data = _from_folder(value, settings)
    elif kind in NUMPY_TYPES:
        raise refusal(
            "NumPy image type is not supported in this configuration of `inference`. It would be a pickle, which runs code when it is "
            'read: encode the array as PNG or JPEG and send {"type": "base64", "value": ...}.'
        )
    else:
        # A long one is no type but an image or a key in the wrong field, which no answer repeats.
        shown = repr(image.type) if len(image.type) <= 16 else f"{len(image.type)} characters"
        raise refusal(f"Image declaration contains not recognised image type. Expected base64 or url, got {shown}.")
    return _checked(data, fault)


def _is_data(value: object) -> bool:
    """Whether a URL holds its image itself, so that nothing is to be fetched."""
    return isinstance(value, str) and base64_text.is_data_uri(value)


def decode_base64(value: object) -> bytes:
    """The bytes behind base64 text: with or without a data prefix, line breaks, padding, in either alphabet.

    Raises:
        InvalidImage: it is no text, empty, or no base64.
    """
    if not isinstance(value, str):
        raise refusal(f"Malformed base64 input image. The value must be a text, got {_json_type(value)}.")
    text = base64_text.without_prefix(value)
    try:
        data = base64_text.decode_base64(text)
    except ValueError:
        remark = _guess(text) if text.isascii() else " It holds characters that are no base64."
        raise refusal(f"Malformed base64 input image.{remark}") from None
    if not data:
        raise refusal("Empty image payload.")
    return data


def _checked(data: bytes, fault: str) -> Structure:
    """The structure of a file that may be decoded here; ``fault`` is what the message begins with if it is no image."""
    if not data:
        raise refusal("Empty image payload.")
    try:
        structure = inspect(data)
    except InvalidImage as error:
        raise as_input_error(error) from None
    if structure is None:
        found = describe(data).removeprefix("not an image in a format that is read here ")
        raise refusal(shortened(f"{fault} The bytes hold no image in a format that is read here{'' if found[0] == '(' else ':'} {found}."))
    return structure


def _from_folder(value: object, settings: Settings) -> bytes:
    """A file below the one folder that is open, symbolic links resolved."""
    if settings.image_folder is None:
        raise refusal("Loading images from local filesystem is disabled. Send the file itself as base64.")
    missing = refusal("There is no such file in the server's image folder.")
    if not isinstance(value, str) or "\0" in value:
        raise missing
    root, limit = settings.image_folder.resolve(), settings.max_body_bytes
    try:
        path = (root / value).resolve()
        if not path.is_relative_to(root) or not path.is_file():
            raise missing
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except (OSError, RuntimeError):  # unreadable, a name that is too long, links in a circle
        raise missing from None
    if len(data) > limit:
        raise ImageTooLarge(f"{CAUSE}The file holds more than {limit} bytes.", field="image")
    return data


def _guess(value: str) -> str:
    """What a value that is no base64 probably is."""
    start = value.lstrip()[:8].lower()
    if start.startswith(("http:", "https:")):
        return ' It looks like a URL: send {"type": "url", ...} instead.'
    if PICTURE_NAME.search(value[-16:].rstrip()):
        return " It looks like a path: the client has sent the name of a file that it did not find."
    return ""


def _json_type(value: object) -> str:
    names = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)
