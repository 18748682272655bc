"""The application of ``florence2 view``: the page's files, what it asks about a run, and copies of its pictures.

Pictures are asked for by their index in the run, so that no address leads to a file. Answers to requests by a name that is not this
machine's own are refused: a page of the web can't have its own name lead here (DNS rebinding). Nothing can be changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import anyio
from anyio import CapacityLimiter
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from florence2.errors import Florence2Error, InvalidRequest
from florence2.listening import NAMES
from florence2.server.errors import NotFound
from florence2.server.label_viewer.index import Index
from florence2.server.label_viewer.pictures import Copies, Stamp, large, stamp_of
from florence2.server.label_viewer.run import Outdated, Run
from florence2.server.label_viewer.selection import read_filters
from florence2.server.web.page_files import SAFETY, PageFiles, file_response

FILES = PageFiles("florence2.server.label_viewer")
MAX_COUNT = 200  # pictures of one answer
NUM_DECODERS = 4  # pictures that are decoded at the same time
NO_STAMP = (0, 0)
NOT_KEPT = {**SAFETY, "cache-control": "no-store"}


class Viewer:
    """The routes of the page.

    Args:
        run: what it shows.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._copies = Copies()
        self._decoders = CapacityLimiter(NUM_DECODERS)
        self.routes = [
            Route("/", self._page),
            Route("/assets/{name:path}", self._asset),
            Route("/api/summary", self._summary),
            Route("/api/pictures", self._pictures),
            Route("/api/position", self._position),
            Route("/small/{version}/{index:int}", self._small),
            Route("/large/{version}/{index:int}", self._large),
        ]

    async def _page(self, request: Request) -> Response:
        return file_response(request, FILES.read_bytes("index.html"), "text/html; charset=utf-8")

    async def _asset(self, request: Request) -> Response:
        return FILES.response(request, request.path_params["name"])

    async def _summary(self, _request: Request) -> Response:
        return _json(await anyio.to_thread.run_sync(self._run.summary))

    async def _pictures(self, request: Request) -> Response:
        """A part of the pictures that filters leave, in order."""
        words = request.query_params
        start, count = (_whole(words.get(name, ""), name) for name in ("start", "count"))
        filters = read_filters(words)
        index = self._run.index(words.get("version", ""))

        def answer() -> dict[str, object]:
            chosen = self._run.select(index, filters)
            shown = chosen[start : start + min(count, MAX_COUNT)]
            return {"total": len(chosen), "start": start, "has_changed": self._run.has_changed, "pictures": index.records(shown.tolist())}

        return _json(await anyio.to_thread.run_sync(answer))

    async def _position(self, request: Request) -> Response:
        """Where the picture with a name is among those that filters leave; null where it is not."""
        filters = read_filters(request.query_params)
        index = self._run.index(request.query_params.get("version", ""))

        def answer() -> dict[str, int | None]:
            found = index.find(request.query_params.get("name", ""))
            places = (self._run.select(index, filters) == found).nonzero()[0]
            return {"position": int(places[0]) if len(places) else None}

        return _json(await anyio.to_thread.run_sync(answer))

    async def _small(self, request: Request) -> Response:
        return await self._copy(request, self._copies.small)

    async def _large(self, request: Request) -> Response:
        return await self._copy(request, lambda file, _: large(file))

    async def _copy(self, request: Request, make: Callable[[str, Stamp], bytes]) -> Response:
        """A copy of a picture, or 304 to a browser that has it and whose file has not changed."""
        file = self._file(request)
        stamp = stamp_of(file) or NO_STAMP
        tag = f'"{stamp[0]:x}-{stamp[1]:x}"'
        headers = {**SAFETY, "cache-control": "no-cache", "etag": tag}
        if stamp != NO_STAMP and tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        copy = await anyio.to_thread.run_sync(make, file, stamp, limiter=self._decoders)
        return Response(copy, media_type="image/jpeg", headers=headers)

    def _file(self, request: Request) -> str:
        """The file of the picture that is asked for.

        Raises:
            NotFound: there is no such picture, or none of its pixels.
            Outdated: the run was read again.
        """
        index: Index = self._run.index(request.path_params["version"])
        number: int = request.path_params["index"]
        if number >= len(index) or not index.files[number]:
            raise NotFound("there is no picture here")
        return index.files[number]


def create_app(run: Run) -> Starlette:
    """The application for a run."""
    # The port is not compared: it is another one where a tunnel leads here.
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=list(NAMES), www_redirect=False)
    return Starlette(routes=Viewer(run).routes, middleware=[hosts], exception_handlers={Florence2Error: _refused, Outdated: _outdated})


def _json(content: object, status: int = 200) -> Response:
    """An answer as JSON in ASCII: names of files need be no Unicode."""
    return Response(json.dumps(content), status, NOT_KEPT, "application/json")


async def _refused(_request: Request, error: Exception) -> Response:
    """An error as JSON; a picture that can't be read is one that is not there."""
    assert isinstance(error, Florence2Error)
    status = getattr(error, "status", 400)
    return _json({"code": error.code, "message": error.message}, status)


async def _outdated(_request: Request, _error: Exception) -> Response:
    return _json({"code": "outdated", "message": "the run was read again; load the page again"}, 410)


def _whole(word: str, name: str) -> int:
    if not (word.isascii() and word.isdigit() and len(word) <= 12):
        raise InvalidRequest(f"{name} must be a whole number from 0 on, got {word[:100]!r}", field=name)
    return int(word)
