"""Bodies in every form that is taken, made into one request.

JSON as clients of Roboflow's server send it, a multipart form with image files, or an image as the whole body with the fields in the
query. Whatever does not fit is told without repeating any of it: bodies hold images and keys. Knows nothing of models.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.datastructures import FormData, ImmutableMultiDict, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from florence2.schemas import InferRequest
from florence2.server.errors import TooManyImages, UnsupportedMedia, ValidationFailed
from florence2.server.settings import Settings

Message = TypeVar("Message", bound=BaseModel)

MAX_FORM_FIELDS = 100
IMAGE_HINT = '; an image is an object {"type": "base64", "value": "…"} or {"type": "url", "value": "https://…"}'
LISTS = frozenset({"prompts"})


async def read_body(request: Request, settings: Settings) -> dict[str, Any]:
    """The fields of an inference request, not yet checked, from a body of any form.

    Raises:
        UnsupportedMedia: a content type that is not taken.
        ValidationFailed: JSON that can't be parsed, or is no object.
        BodyTooLarge: by the limit on bodies.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise UnsupportedMedia(f"the body must not be compressed, got Content-Encoding: {encoding[:40]}; send it as it is")
    if kind == "application/json":
        return await read_json(request)
    if kind == "multipart/form-data":
        async with _form(request, settings) as form:
            files = [part for part in form.getlist("image") if isinstance(part, UploadFile)]
            pictures = [_bytes_field(await part.read()) for part in files]
            if not pictures or len(pictures) != len(form.getlist("image")):
                raise _no_picture(form)
            fields = {**_fields_of(request.query_params), **_fields_of(form)}
            return {**fields, **({"image": pictures[0] if len(pictures) == 1 else pictures} if pictures else {})}
    if kind.startswith("image/") or kind == "application/octet-stream":
        return {**_fields_of(request.query_params), "image": _bytes_field(await request.body())}
    hint = " (curl sends that type unless told otherwise: add -H 'Content-Type: application/json')" if "urlencoded" in kind else ""
    raise UnsupportedMedia(f"the body must be application/json, multipart/form-data or image/…, got {kind[:80] or 'no Content-Type'}{hint}")


@asynccontextmanager
async def _form(request: Request, settings: Settings) -> AsyncIterator[FormData]:
    """The parts of a form; too many files are told as too many images."""
    try:
        parsing = request.form(max_files=settings.max_images, max_fields=MAX_FORM_FIELDS, max_part_size=settings.max_body_bytes)
        form = await parsing
    except HTTPException as error:
        if "Too many files" not in error.detail:
            raise
        raise TooManyImages(f"at most {settings.max_images} images are taken in a request, got more; split it", field="image") from None
    try:
        yield form
    finally:
        await form.close()


async def read_json(request: Request) -> dict[str, Any]:
    """The body as a JSON object.

    Raises:
        ValidationFailed: it is none.
    """
    body = await request.body()
    try:
        content = from_json(body)
    except ValueError as error:
        raise ValidationFailed(
            f"the body is no JSON: {error}", detail=[{"type": "json_invalid", "loc": ["body"], "msg": "JSON decode error"}]
        ) from None
    if not isinstance(content, dict):
        raise ValidationFailed(
            "the body must be a JSON object",
            detail=[{"type": "model_attributes_type", "loc": ["body"], "msg": "Input should be an object"}],
        )
    return content


def validate(kind: type[Message], fields: Mapping[str, Any]) -> Message:
    """The message that the fields make.

    Raises:
        ValidationFailed: a field is missing or of the wrong type.
    """
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise failed_validation(error.errors(include_url=False, include_input=False, include_context=False), "body") from None


def failed_validation(parts: Iterable[Mapping[str, Any]], source: str | None = None) -> ValidationFailed:
    """The error for what pydantic found, nothing of the input in it.

    Args:
        parts: pydantic's errors.
        source: what the places of the errors begin with: body, query or path; None if they do already.
    """
    detail = [
        {
            "type": part["type"],
            # Tags that tell the members of a union apart are nobody's concern.
            "loc": [*([source] if source else []), *(step for step in part["loc"] if not _is_form(step))],
            "msg": re.sub(r"a valid dictionary or instance of \w+", "an object", part["msg"]),
        }
        for part in parts
    ]
    first = detail[0]
    field = ".".join(map(str, first["loc"][1:])) or None
    hint = IMAGE_HINT if field and field.startswith("image") else ""
    more = f" (and {len(detail) - 1} more, see detail)" if len(detail) > 1 else ""
    return ValidationFailed(f"{field or 'the request'}: {first['msg']}{hint}{more}", field=field, detail=detail)


def _is_form(step: int | str) -> bool:
    """Whether a step of a place only tells the members of a union apart."""
    return str(step).startswith("as ") or step in ("list[float]", "str")


def missing_model() -> ValidationFailed:
    """The error for a request that names no model."""
    return _missing("model_id", 'model_id is missing: name a model such as "florence-2-base"')


def _missing(field: str, message: str) -> ValidationFailed:
    return ValidationFailed(message, field=field, detail=[{"type": "missing", "loc": ["body", field], "msg": "Field required"}])


def _no_picture(form: FormData) -> ValidationFailed:
    """The error for a form whose image is missing or no file, in terms of forms."""
    others = ", ".join(dict.fromkeys(name[:40] for name, part in form.multi_items() if isinstance(part, UploadFile) and name != "image"))
    got = "a field without a file name" if "image" in form else f"files named {others}" if others else "none"
    return _missing(
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
    """Numbers from "x1,y1,x2,y2" or JSON; anything else as it is, for the check to refuse."""
    if text.lstrip().startswith("<"):
        return text
    try:
        return from_json(f"[{text.strip().strip('[]')}]")
    except ValueError:
        return text
