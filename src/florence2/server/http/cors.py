"""Answers that pages of other origins may read, where a setting names the origin.

Two parts, as each has another place: errors are answers too, so that the headers are added outside of what writes errors; and a preflight
that is refused is an error like any other, so that preflights are answered inside of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Receive, Scope, Send

from florence2.server.settings import Settings


def cors_options(settings: Settings, exposed_headers: Iterable[str]) -> dict[str, Any]:
    """The arguments of both parts."""
    return {
        "allow_origins": settings.allow_origins,
        # The server reads no cookies; a page of any origin gets nothing by its reader's.
        "allow_credentials": "*" not in settings.allow_origins,
        "allow_methods": ["*"],
        "allow_headers": ["*"],
        "expose_headers": list(exposed_headers),
    }


class Preflights(CORSMiddleware):
    """Answers preflights of origins that are allowed; all else passes."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on."""
        if scope["type"] == "http" and scope["method"] == "OPTIONS":
            headers = Headers(scope=scope)
            if "access-control-request-method" in headers and self.is_allowed_origin(headers.get("origin", "")):
                await self.preflight_response(request_headers=headers)(scope, receive, send)
                return
        await self.app(scope, receive, send)


class ReadableAnswers(CORSMiddleware):
    """Adds to every answer whether the page that asked may read it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] == "http" and "origin" in (headers := Headers(scope=scope)):
            await self.simple_response(scope, receive, send, request_headers=headers)
        else:
            await self.app(scope, receive, send)
