"""The routes of this API. Each reads its request, calls what does the work, and writes the answer.

Errors are raised, never written here: the server's middleware gives them the API's form.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.types import Scope

from florence2.errors import InvalidRequest
from florence2.server.errors import ValidationFailed
from florence2.server.http.auth import may_use, require_model
from florence2.server.http.body import ShownKey, receive_body, require_json
from florence2.server.http.direct_route import DirectRoute
from florence2.server.http.json_body import parse_object
from florence2.server.http.metering import metered
from florence2.server.http.openapi import json_body
from florence2.server.http.sse import MEDIA_TYPE, event_stream
from florence2.server.http.state import ServerState, admit, state_of
from florence2.server.http.streaming import unless_client_leaves
from florence2.server.http.validation import validate
from florence2.server.openai.answers import completion, result_of
from florence2.server.openai.arguments import check_arguments
from florence2.server.openai.chunks import error_event, stream_chunks
from florence2.server.openai.conversation import read_question
from florence2.server.openai.image_url import UrlImage
from florence2.server.openai.model_list import model_entry, model_list
from florence2.server.openai.questions import Chat, check_format, inference_request, naming_arguments, parse, parse_tiles
from florence2.server.openai.schemas import ChatRequest, Completion, ErrorAnswer, ModelEntry, ModelList

PREFIX = "/v1"
CHUNKS = (
    "With `stream: true`. Each event is a line of JSON, a `chat.completion.chunk`: the role, the content as it is decided, why it ended, "
    "and the usage where `stream_options` asks for it; the last event is `[DONE]`, or an error as in other responses."
)
HINTS = {
    "model": "; name one that GET /v1/models lists",
    "messages": '; send [{"role": "user", "content": [a part with a text, a part with an image_url]}]',
    "response_format": '; send {"type": "json_object"} or leave it out',
}
ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorAnswer, "description": "The request's mistake; see /docs/errors."},
    "5XX": {"model": ErrorAnswer, "description": "The server's."},
}

router = APIRouter(route_class=DirectRoute, prefix=PREFIX, tags=["OpenAI"])


@router.post(
    "/chat/completions",
    openapi_extra=json_body(ChatRequest),
    responses={200: {"model": Completion, "content": {MEDIA_TYPE: {"schema": {"type": "string", "description": CHUNKS}}}}, **ERRORS},
)
async def chat_completions(request: Request) -> Response:
    """Ask a model about a picture, as OpenAI's chat completions do."""
    server, settings = state_of(request), state_of(request).settings
    permit = admit(request)
    require_json(request)
    body = await receive_body(request, permit, server.keys, _no_key, settings, settings.max_body_bytes)
    message = await server.body_threads.parse(request, len(body), partial(read_request, body))
    del body
    with naming_arguments(message):
        request.scope["state"]["model"] = model_id = server.models.canonical(message.model)
        require_model(request, model_id, server.models.canonical)
        question = read_question(message.messages)
        prompt = parse(message, question, settings.max_prompt_chars)
        tiles = parse_tiles(message, prompt, settings.max_tiles)
        num_beams = server.models.num_beams(model_id, message.num_beams)
        permit.grow(num_beams)
    reserve = partial(permit.add_slots, num_beams)
    image = UrlImage(question.image_url, question.image_field, server.fetcher)
    message.messages.clear()  # they hold the picture as text, which is needed once
    del question
    key_name = request.scope["state"]["key_name"]
    chat = Chat(message, image, prompt, model_id, key_name, tiles, reserve, metered(request, 1), permit)
    if message.stream:
        help_root = request.scope["state"]["help_root"]
        return event_stream(request, _streamed(server, chat), error_event=lambda error: error_event(error, help_root))
    return await unless_client_leaves(request, _answered(server, chat))


def read_request(body: bytes | bytearray) -> ChatRequest:
    """The request that a body holds, its arguments checked.

    Raises:
        InvalidRequest: it is no JSON, or an argument is missing or of the wrong type.
        UnsupportedArgument: an argument that can't be honoured.
    """
    try:
        fields = parse_object(body)
        check_arguments(fields)
        message = validate(ChatRequest, fields, lambda field: HINTS.get(field, ""))
    except ValidationFailed as error:  # that API answers 400, and clients know it by that
        field = re.sub(r"\.(\d+)", r"[\1]", error.field or "")
        raise InvalidRequest(error.message.replace(error.field or "\0", field), field=field or None) from None
    check_format(message)
    return message


async def _answered(server: ServerState, chat: Chat) -> Response:
    with naming_arguments(chat.message):
        model, _ = await server.models.get(chat.model_id, server.settings.model_wait_s)
        outcome = await server.inference.answer(inference_request(chat, model))
    answer = completion(chat.message, result_of(outcome), outcome.model_id, model.engine)
    return Response(answer.model_dump_json(), media_type="application/json")


async def _streamed(server: ServerState, chat: Chat) -> AsyncGenerator[bytes, None]:
    with naming_arguments(chat.message):
        model, _ = await server.models.get(chat.model_id, server.settings.model_wait_s)
        request = inference_request(chat, model)
        async with aclosing(stream_chunks(chat.message, request, server.inference, model.engine)) as chunks:
            async for chunk in chunks:
                yield chunk


@router.get("/models/", include_in_schema=False)
@router.get("/models", responses=ERRORS)
async def list_models(request: Request) -> ModelList:
    """The models that a request may name."""
    models, key = state_of(request).models, request.scope["state"]["key"]
    return model_list(models, [one for one in models.known if may_use(key, one, models.canonical)])


@router.get("/models/{model_id:path}", responses=ERRORS)
async def show_model(request: Request, model_id: str) -> ModelEntry:
    """One model, by any of its names."""
    models = state_of(request).models
    require_model(request, models.canonical(model_id), models.canonical)
    return model_entry(models, model_id)


def _no_key(_: Scope, __: bytes) -> ShownKey | None:
    """No body of this API holds a key."""
    return None
