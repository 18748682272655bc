"""Chat requests as clients write them."""

from __future__ import annotations

import base64
from typing import Any

from tests.server.fakes import image_bytes


def data_uri(data: bytes | None = None, kind: str = "png") -> str:
    """An image file as a data URI."""
    return f"data:image/{kind};base64,{base64.b64encode(image_bytes() if data is None else data).decode('ascii')}"


def picture(url: object = None) -> dict[str, Any]:
    """A part with a picture."""
    return {"type": "image_url", "image_url": {"url": data_uri() if url is None else url}}


def user(*parts: Any) -> dict[str, Any]:
    """A message of the user: texts and parts of other types."""
    return {"role": "user", "content": [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]}


def chat(*messages: Any, **fields: Any) -> dict[str, Any]:
    """The body of a chat request; messages that are texts ask it about a picture."""
    asked = [user(message, picture()) if isinstance(message, str) else message for message in messages]
    return {"model": "florence-2-base", "messages": asked, **fields}
