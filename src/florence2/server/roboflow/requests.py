"""Bodies in every form that is taken, made into one request.

JSON as clients of Roboflow's server send it, a multipart form with image files, or an image as the whole body with the fields in the
query. An error repeats nothing of a body, which may hold images and keys. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from python_multipart.exceptions import FormParserError
from starlette.datastructures import FormData, ImmutableMultiDict, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from florence2.errors import InvalidRequest
from florence2.server.errors import TooManyImages, UnsupportedMedia, ValidationFailed
from florence2.server.http.auth import content_kind
from florence2.server.http.body import refuse_compressed
from florence2.server.http.json_body import SLICE_BYTES, parse_object
from florence2.server.http.region import MAX_REGION_CHARS
from florence2.server.http.validation import missing, validate
from florence2.server.roboflow.schemas import InferRequest
from florence2.server.settings import Settings
from florence2.tasks.prompt import read_pixels

MAX_FORM_FIELDS = 100
MAX_FIELD_BYTES = 2**18  # eight times the longest prompt of 8192 characters
IMAGE_HINT = '; an image is an object {"type": "base64", "value": "…"} or {"type": "url", "value": "https://…"}'
LISTS = frozenset({"prompts"})


def read_fields(request: Request, body: bytearray, settings: Settings) -> dict[str, Any]:
    """The fields of an inference request, not yet checked, from a body of any form. May run in any thread.

    Raises:
        UnsupportedMedia: a content type that is not taken.
        ValidationFailed: JSON or a form that can't be parsed, or that has too many parts.
        TooManyImages: more images or prompts than are taken.
    """
    kind = content_kind(request.scope)
    refuse_compressed(request)
    if kind == "application/json":
        return parse_object(body)
    if kind == "multipart/form-data":
        with _form(request, body, settings) as form:
            pictures = [_bytes_field(part.file.read()) for part in form.getlist("image") if isinstance(part, UploadFile)]
            if not pictures or len(pictures) != len(form.getlist("image")):
                raise _no_picture(form)
            fields = {**_fields_of(request.query_params), **_fields_of(form)}
            return {**fields, "image": pictures[0] if len(pictures) == 1 else pictures}
    if kind.startswith("image/") or kind == "application/octet-stream":
        return {**_fields_of(request.query_params), "image": _bytes_field(bytes(body))}
    hint = " (curl sends that type unless told otherwise: add -H 'Content-Type: application/json')" if "urlencoded" in kind else ""
    raise UnsupportedMedia(f"the body must be application/json, multipart/form-data or image/…, got {kind[:80] or 'no Content-Type'}{hint}")


class _InMemory(MultiPartParser):
    """Keeps files where the body is already, instead of writing them to a disk that there may not be."""

    spool_max_size = 2**62


@contextmanager
def _form(request: Request, body: bytearray, settings: Settings) -> Iterator[FormData]:
    """The parts of a form; too many files are reported as too many images."""

    async def slices() -> AsyncGenerator[bytes, None]:
        for start in range(0, len(body), SLICE_BYTES):
            yield bytes(body[start : start + SLICE_BYTES])

    limits = {"max_files": settings.max_images, "max_fields": MAX_FORM_FIELDS, "max_part_size": MAX_FIELD_BYTES}
    try:
        form = _result_at_once(_InMemory(request.headers, slices(), **limits).parse())
    except MultiPartException as error:
        raise _broken_form(error.message, settings.max_images) from None
    except (FormParserError, LookupError):  # before starlette 1.6: errors that it does not turn into its own, and unknown charsets
        raise _broken_form("Invalid multipart data.", settings.max_images) from None
    try:
        yield form
    finally:
        for _, part in form.multi_items():
            if isinstance(part, UploadFile):
                part.file.close()


def _result_at_once(parsing: Coroutine[Any, Any, FormData]) -> FormData:
    """The result of a coroutine that waits for nothing: all of the body is there, and files stay in memory."""
    try:
        parsing.send(None)
    except StopIteration as stopped:
        return stopped.value
    parsing.close()
    raise RuntimeError("the parser of forms has waited for something")


def _broken_form(reason: str, max_images: int) -> InvalidRequest:
    if "Too many files" in reason:
        return TooManyImages(f"at most {max_images} images are taken in a request, got more; split it", field="image")
    if "exceeded maximum size" in reason:
        message = f"a field of the form has at most {MAX_FIELD_BYTES} bytes; an image is a file part, with a file name"
        return ValidationFailed(message, detail=[{"type": "too_long", "loc": ["body"], "msg": "Field too long"}])
    return InvalidRequest(f"the form can't be read: {reason}")


def infer_request(fields: Mapping[str, Any], settings: Settings) -> InferRequest:
    """The inference request that the fields make. Its lists are counted before anything in them is looked at.

    Raises:
        TooManyImages: more images or prompts than are taken.
        ValidationFailed: a field is missing, too long or of the wrong type.
    """
    for name, most, what in (("image", settings.max_images, "images"), ("prompts", settings.max_prompts, "prompts")):
        value = fields.get(name)
        if isinstance(value, list) and len(value) > most:
            raise TooManyImages(f"at most {most} {what} are taken in a request, got {len(value)}; split it", field=name)
    return validate(InferRequest, fields, lambda field: IMAGE_HINT if field.startswith("image") else "")


def _no_picture(form: FormData) -> ValidationFailed:
    """The error for a form whose image is missing or no file, in terms of forms."""
    others = ", ".join(dict.fromkeys(name[:40] for name, part in form.multi_items() if isinstance(part, UploadFile) and name != "image"))
    got = "a field without a file name" if "image" in form else f"files named {others}" if others else "none"
    return missing(
        "image",
        f"the form needs an image as a file part named image, got {got[:200]}; with curl: -F image=@photo.jpg (once for each image)",
    )


def _bytes_field(data: bytes) -> dict[str, Any]:
    return {"type": "multipart", "value": data}


def _fields_of(values: ImmutableMultiDict[str, Any]) -> dict[str, Any]:
    """The fields of a query or form, as JSON would have them."""
    fields: dict[str, Any] = {}
    for name in InferRequest.model_fields:
        texts = [text for text in values.getlist(name) if isinstance(text, str)]
        if texts and name != "image":
            fields[name] = texts if name in LISTS else _region(texts[0]) if name == "region" else texts[0]
    return fields


def _region(text: str) -> Any:
    """Numbers from "x1,y1,x2,y2" or JSON; anything else as it is, to be refused when the fields are checked."""
    if len(text) > MAX_REGION_CHARS or text.lstrip().startswith("<"):
        return text
    try:
        return read_pixels(text)
    except ValueError:
        return text
