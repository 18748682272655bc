"""The routes of the page: its files, what it has to know, and pictures that it is given a link to.

Errors are raised, never written here; answers about pictures come from the other APIs.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict

from florence2.server.http.body import receive_body
from florence2.server.http.json_body import parse_object
from florence2.server.http.state import admit, state_of
from florence2.server.http.streaming import unless_client_leaves
from florence2.server.http.validation import validate
from florence2.server.playground.config import page_config
from florence2.server.playground.linked_image import linked_image
from florence2.server.playground.page_files import ASSETS_PATH, FILES
from florence2.server.web.page_files import SAFETY, file_response

PREFIX = "/playground"
CONFIG_PATH = "/playground/config"
IMAGE_BODY_BYTES = 2**15  # an address has half as many characters at most
NOT_KEPT = {**SAFETY, "cache-control": "no-store"}

router = APIRouter(include_in_schema=False)


class ImageAddress(BaseModel):
    """Body of ``/playground/image``."""

    model_config = ConfigDict(extra="forbid")

    url: str


def front_page(request: Request) -> Response:
    """The page itself."""
    root, page = state_of(request).settings.root_path, FILES.read_text("index.html")
    if root:  # the page may have been opened without the slash at the end, where relative addresses mean something else
        page = page.replace(f'"{ASSETS_PATH[1:]}/', f'"{root}{ASSETS_PATH}/')
    return file_response(request, page.encode("utf-8"), "text/html; charset=utf-8", vary="Accept")


@router.head(ASSETS_PATH + "/{name:path}")
@router.get(ASSETS_PATH + "/{name:path}")
async def page_file(request: Request, name: str) -> Response:
    """One of the page's files."""
    return FILES.response(request, name)


@router.get(CONFIG_PATH)
async def config(request: Request) -> JSONResponse:
    """Models, tasks, examples and limits, for the page."""
    return JSONResponse(page_config(state_of(request)), headers=NOT_KEPT)


@router.post(PREFIX + "/image")
async def image(request: Request) -> Response:
    """The picture at an address."""
    server, settings = state_of(request), state_of(request).settings
    permit = admit(request)
    body = await receive_body(request, permit, server.keys, lambda *_: None, settings, IMAGE_BODY_BYTES)
    address = validate(ImageAddress, parse_object(body)).url
    data, media_type = await unless_client_leaves(request, linked_image(address, server.fetcher, settings))
    permit.add_bytes(len(data))
    return Response(data, media_type=media_type, headers=NOT_KEPT)
