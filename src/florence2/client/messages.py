"""What servers say of errors, as text that may be shown and logged.

In: an answer and its JSON, in any of the shapes that servers of this interface have. Out: one text, without secrets and of bounded length.
Knows neither requests nor error classes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from florence2.client.wire import Response

_MAX_QUOTED_CHARS = 500
_SECRET = re.compile(r"\b(api_key|service_secret)=[^&\s\"'<>]+")


def message_of(body: Any, response: Response) -> str:
    """What a server says of its error, in any of the shapes that there are; never what it quotes of the request."""
    if leads_elsewhere(response):
        where = response.headers["location"].partition("?")[0]
        return f"the server redirects to {where}, which is not followed with a key; give the right address as api_url"
    if isinstance(body, dict):
        for name in ("message", "detail", "error"):
            said = body.get(name)
            if isinstance(said, str) and said:
                return _with_details(said, body)
            if isinstance(said, list) and said:
                return _with_details("; ".join(_part_of(part) for part in said), body)
        return _with_details(_phrase(response), body)
    text = response.content.decode("utf-8", "replace").strip()
    return text if text and "html" not in response.headers.get("content-type", "") else _phrase(response)


def leads_elsewhere(response: Response) -> bool:
    """Whether an answer says that there is another address."""
    return 300 <= response.status_code < 400 and bool(response.headers.get("location"))


def _with_details(said: str, body: Mapping[str, Any]) -> str:
    """A message with what lies below it, where the server sends that."""
    more = body.get("inner_error_message")
    return f"{said}. More details: {more}" if more else said


def _phrase(response: Response) -> str:
    """What an answer's status stands for."""
    try:
        return HTTPStatus(response.status_code).phrase
    except ValueError:
        return "no message"


def quoted(text: str, secrets: Sequence[str | None]) -> str:
    """A text of a server as messages hold it: without secrets, and not too long."""
    text = without_secrets(text, secrets)
    return text if len(text) <= _MAX_QUOTED_CHARS else text[: _MAX_QUOTED_CHARS - 1] + "…"


def without_secrets(text: str, secrets: Sequence[str | None]) -> str:
    """A text in which no secret can be read, as it is or as in an address."""
    for secret in secrets:
        if secret and len(secret) > 3:  # shorter ones would take letters out of words
            for form in (secret, quote(secret, safe=""), quote_plus(secret)):
                text = text.replace(form, "***")
    return _SECRET.sub(r"\1=***", text)


def _part_of(part: Any) -> str:
    """One complaint of a validator: where, and what."""
    if not isinstance(part, dict):
        return str(part)
    return f"{'.'.join(str(step) for step in part.get('loc') or ())}: {part.get('msg', 'not valid')}"
