"""A second API beside Roboflow's: a folder's worth of code, with errors of its own form and routes that stream slowly.

``add()`` makes every application offer it, in this process; a server process calls it in its prelude.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from PIL import Image

from florence2.errors import Florence2Error, InvalidPrompt
from florence2.server import app
from florence2.server.http.api import Api
from florence2.server.http.state import admit, state_of
from florence2.server.http.streaming import StreamedResponse
from florence2.tasks.prompt import parse_prompt

SLOTS = 5
logger = logging.getLogger("florence2.tests.slow_api")
router = APIRouter()
ended: list[str] = []
"""How each generator of a body has ended."""


@router.post("/slow/stream/{count}")
async def stream(request: Request, count: int, pause_s: float = 0.01) -> Response:
    """Parts of a body, a while apart."""
    admit(request).grow(SLOTS)
    return StreamedResponse(parts(count, pause_s), media_type="text/event-stream")


@router.post("/slow/infer")
async def infer(request: Request) -> Response:
    """A part at once, and the answer of an engine when it is there."""
    admit(request)
    model, _ = await state_of(request).models.get("florence-2-demo")
    return StreamedResponse(answer(model.engine), media_type="text/event-stream")


@router.post("/slow/mistake")
async def mistake(request: Request) -> Response:
    """An error, once the request is admitted."""
    admit(request)
    raise InvalidPrompt("no prompt is right here", field="messages")


async def parts(count: int, pause_s: float) -> AsyncGenerator[bytes, None]:
    try:
        for number in range(count):
            yield b"data: %d\n\n" % number
            await asyncio.sleep(pause_s)
            if number == 99:
                raise RuntimeError("broken in the middle")
        note("whole")
    except BaseException as error:
        note(type(error).__name__)
        raise


async def answer(engine: Any) -> AsyncGenerator[bytes, None]:
    (future,) = engine.submit_many(Image.new("RGB", (8, 8)), [engine.prepare(parse_prompt("<OD>"))])
    try:
        yield b": waiting\n\n"
        yield (await asyncio.wrap_future(future)).raw.encode()
    finally:
        future.cancel()


def note(how: str) -> None:
    ended.append(how)
    logger.info("the body has ended: %s", how)


def error_body(error: Florence2Error, help_root: str) -> dict[str, Any]:
    return {"error": {"message": error.message, "type": error.code, "param": error.field}}


API = Api(router=router, prefixes=("/slow",), error_body=error_body, model_ids={"slow-base": "florence-2-base"})


def add() -> None:
    """Offer it in all applications made from now on."""
    app.APIS = (*app.APIS, API)
