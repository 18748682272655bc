"""What pydantic finds wrong with a request, as an error of this project. Nothing of the input is repeated: bodies hold images and keys."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from florence2.server.errors import ValidationFailed

Message = TypeVar("Message", bound=BaseModel)


def validate(kind: type[Message], fields: Mapping[str, Any], hint_for: Callable[[str], str] = lambda _: "") -> Message:
    """The message that the fields of a body make.

    Args:
        kind: the class of the message.
        fields: the body.
        hint_for: what to add to the error's text, by the name of the field that is wrong.

    Raises:
        ValidationFailed: a field is missing or of the wrong type.
    """
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise failed_validation(error.errors(include_url=False, include_input=False, include_context=False), "body", hint_for) from None


def failed_validation(
    parts: Iterable[Mapping[str, Any]], source: str | None = None, hint_for: Callable[[str], str] = lambda _: ""
) -> ValidationFailed:
    """The error for what pydantic found.

    Args:
        parts: pydantic's errors.
        source: what the locations of the errors begin with: body, query or path; None if they do already.
        hint_for: what to add to the error's text, by the name of the field that is wrong.
    """
    detail = [
        {
            "type": part["type"],
            # Tags that tell the members of a union apart are no part of the request.
            "loc": [*([source] if source else []), *(step for step in part["loc"] if not str(step).startswith("as "))],
            "msg": re.sub(r"a valid dictionary or instance of \w+", "an object", part["msg"]),
        }
        for part in parts
    ]
    first = detail[0]
    field = ".".join(map(str, first["loc"][1:])) or None
    more = f" (and {len(detail) - 1} more, see detail)" if len(detail) > 1 else ""
    message = f"{field or 'the request'}: {first['msg']}{hint_for(field or '')}{more}"
    return ValidationFailed(message, field=field, detail=detail)


def missing(field: str, message: str) -> ValidationFailed:
    """The error for a body that lacks a field."""
    return ValidationFailed(message, field=field, detail=[{"type": "missing", "loc": ["body", field], "msg": "Field required"}])
