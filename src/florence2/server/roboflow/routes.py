"""The routes of this API. Each reads its request, calls what does the work, and writes the answer.

Errors are raised, never written here: the server's middleware gives them the API's form.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from florence2.errors import InvalidRequest
from florence2.server.errors import Forbidden, ModelMismatch, NotOffered
from florence2.server.http.auth import check_body, may_use, require_model
from florence2.server.http.body import receive_body
from florence2.server.http.direct_route import DirectRoute
from florence2.server.http.json_body import parse_object
from florence2.server.http.metering import metered
from florence2.server.http.openapi import json_body
from florence2.server.http.state import SERVER_NAME, ServerState, admit, state_of
from florence2.server.http.streaming import unless_client_leaves
from florence2.server.http.validation import missing, validate
from florence2.server.inference.models import Models
from florence2.server.roboflow.answers import registry, write_answers
from florence2.server.roboflow.body_key import find_key
from florence2.server.roboflow.openapi import infer_body, infer_events
from florence2.server.roboflow.questions import inference_request, parse_prompts
from florence2.server.roboflow.requests import infer_request, read_fields
from florence2.server.roboflow.schemas import ErrorBody, FailedItem, InferResponse, ModelRequest, Registry, ServerInfo
from florence2.server.roboflow.streaming import stream_answers
from florence2.version import __version__

INFO_PATH = "/info"
MANAGEMENT_PATHS = frozenset({"/model/add", "/model/remove", "/model/clear"})
MODEL_BODY_BYTES = 2**14  # of the routes that manage models

router = APIRouter(route_class=DirectRoute)

INFER_DOCS: dict[str, Any] = {
    "summary": "Ask a model about one image or several.",
    "tags": ["inference"],
    "responses": {
        200: {"model": InferResponse | list[InferResponse | FailedItem], "content": infer_events()},
        "4XX": {"model": ErrorBody, "description": "The request's mistake; see /docs/errors."},
        "5XX": {"model": ErrorBody, "description": "The server's."},
    },
    "openapi_extra": {"requestBody": {"required": True, "content": infer_body()}},
}

MANAGEMENT_DOCS: dict[str, Any] = {
    "tags": ["models"],
    "response_model": Registry,
    "responses": {status: {"model": ErrorBody} for status in (401, 403, 404, 408, 413, 422, 500, 502, 503)},
}


@router.post("/infer/lmm", **INFER_DOCS)
async def infer(request: Request, countinference: bool | None = None, service_secret: str | None = None) -> Response:
    """Ask a model about one image or several."""
    return await _infer(request, None)


@router.post("/infer/lmm/{model_id:path}", **INFER_DOCS)
async def infer_with_path(
    request: Request, model_id: str, countinference: bool | None = None, service_secret: str | None = None
) -> Response:
    """The same with the model in the path."""
    return await _infer(request, model_id.strip("/") or None)


async def _infer(request: Request, path_model: str | None) -> Response:
    server, settings, state = state_of(request), state_of(request).settings, request.scope["state"]
    permit = admit(request)
    body = await receive_body(request, permit, server.keys, find_key, settings, settings.max_body_bytes)
    try:
        fields = await server.body_threads.parse(request, len(body), partial(read_fields, request, body, settings))
    except InvalidRequest:
        await check_body(request.scope, server.keys, None)  # a missing key is reported first
        raise
    del body
    key = await check_body(request.scope, server.keys, fields.get("api_key"))
    permit.identify(key.name, key.max_slots)
    message = infer_request(fields, settings)
    del fields
    state["model"] = model_id = _model_id(server.models, path_model, message.model_id)
    require_model(request, model_id, server.models.canonical)
    prompts = parse_prompts(message, settings.max_prompt_chars)
    num_rows = len(prompts) * server.models.num_beams(model_id, message.num_beams)  # of one image
    reserve = partial(permit.add_slots, num_rows)
    question = inference_request(message, model_id, prompts, state["key_name"], server.fetcher, settings, permit, reserve)
    permit.grow(len(question.images) * num_rows)
    question = replace(question, note_used=metered(request, len(question.images)))
    if message.stream:
        return stream_answers(request, message, model_id, server.inference.stream(question))
    outcome = await unless_client_leaves(request, server.inference.answer(question))
    return write_answers(message, outcome, state["started"], state["help_root"])


def _model_id(models: Models, path_model: str | None, body_model: str | None) -> str:
    """The canonical id of the model that path or body name.

    Raises:
        ValidationFailed: neither does.
        ModelNotFound: there is no such model.
        ModelMismatch: they name two.
    """
    if path_model is None and body_model is None:
        raise missing("model_id", 'model_id is missing: name a model such as "florence-2-base"')
    chosen = models.canonical(path_model if path_model is not None else body_model or "")
    if path_model is not None and body_model is not None and models.canonical(body_model) != chosen:
        raise ModelMismatch(f"Model ID mismatch: path specifies {path_model!r} but request body specifies {body_model!r}", field="model_id")
    return chosen


@router.get("/model/registry", response_model=Registry, tags=["models"])
async def model_registry(request: Request) -> Registry:
    """The loaded models."""
    server = state_of(request)
    if not server.settings.allow_model_registry:
        raise NotOffered("the list of models is not offered here (setting allow_model_registry)")
    return _registry(request)


@router.post("/model/add", **MANAGEMENT_DOCS, openapi_extra=json_body(ModelRequest))
async def model_add(request: Request, countinference: bool | None = None, service_secret: str | None = None) -> Registry:
    """Load a model, if it is not loaded yet."""
    server, message = await _model_request(request)
    await server.models.add(message.model_id)
    return _registry(request)


@router.post("/model/remove", **MANAGEMENT_DOCS, openapi_extra=json_body(ModelRequest))
async def model_remove(request: Request) -> Registry:
    """Drop a model, if it is loaded."""
    server, message = await _model_request(request)
    server.models.remove(message.model_id)
    return _registry(request)


@router.post("/model/clear", **MANAGEMENT_DOCS)
async def model_clear(request: Request) -> Registry:
    """Drop all models."""
    server = state_of(request)
    _check_management(server)
    if request.scope["state"]["key"].models is not None:
        raise Forbidden("this key is for some models, and may not drop all: drop them by name, with /model/remove")
    server.models.clear()
    return _registry(request)


def _registry(request: Request) -> Registry:
    """The loaded models that the request's key may use."""
    models, key = state_of(request).models, request.scope["state"]["key"]
    return registry(models, [model for model in models.loaded if may_use(key, model.id, models.canonical)])


async def _model_request(request: Request) -> tuple[ServerState, ModelRequest]:
    server = state_of(request)
    _check_management(server)
    body = await receive_body(request, None, server.keys, find_key, server.settings, MODEL_BODY_BYTES)
    try:
        fields = parse_object(body)
    except InvalidRequest:
        await check_body(request.scope, server.keys, None)
        raise
    await check_body(request.scope, server.keys, fields.get("api_key"))
    message = validate(ModelRequest, fields)
    if request.scope["state"]["key"].models is not None:
        require_model(request, server.models.canonical(message.model_id), server.models.canonical)
    return server, message


def _check_management(server: ServerState) -> None:
    if not server.settings.allow_model_management:
        raise NotOffered("loading and dropping models is not offered here (setting allow_model_management)")


@router.get(INFO_PATH, response_model=ServerInfo, tags=["server"])
async def info(request: Request) -> ServerInfo:
    """What this is."""
    return ServerInfo(name=SERVER_NAME, version=__version__, uuid=state_of(request).uuid)
