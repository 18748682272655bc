"""The routes. Each reads its request, calls what does the work, and writes the answer.

Errors are raised, never written here: ``envelope.py`` gives them their form.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from florence2.errors import InvalidRequest
from florence2.server.errors import ClientLeft, ModelMismatch, NotOffered, TimedOut
from florence2.server.http import pages
from florence2.server.http.auth import Keys, check_body
from florence2.server.http.body import receive_body
from florence2.server.http.json_body import parse_object
from florence2.server.http.metrics import Metrics
from florence2.server.inference.admission import Admission
from florence2.server.inference.models import Models
from florence2.server.inference.service import Answerer, Outcome, check
from florence2.server.roboflow.requests import infer_request, missing_model, read_fields, validate
from florence2.server.roboflow.schemas import ErrorBody, FailedItem, InferResponse, ModelRequest, Registry, ServerInfo
from florence2.server.settings import Settings
from florence2.version import __version__
from florence2.weights.aliases import DEMO, DEMO_IS, REAL

NAME = "florence2 server"
MODEL_BODY_BYTES = 2**14  # of the routes that manage models

router = APIRouter()
Value = TypeVar("Value")


@dataclass
class Service:
    """What the routes of one application share.

    Attributes:
        uuid: this process, for ``/info``.
        cold_starts: requests so far that had to wait for their model.
        failure: why the models named at the start could not be loaded.
    """

    settings: Settings
    models: Models
    keys: Keys
    admission: Admission
    metrics: Metrics
    answerer: Answerer
    uuid: str
    cold_starts: int = 0
    failure: str | None = None

    @property
    def notice(self) -> str | None:
        """What is to be known of the model that was loaded because nobody named one."""
        if not self.settings.is_demo_unasked:
            return None
        real = "" if self.settings.loadable == "named" else f"; {REAL} answers by its own name, and is downloaded at its first request"
        return f"no --model is given, so {DEMO} is loaded, {DEMO_IS}; only requests for {DEMO} reach it{real} (--model {REAL} at the start)"

    @property
    def is_ready(self) -> bool:
        """Whether requests should be sent here."""
        return self.models.is_preloaded and not self.admission.is_draining and self.failure is None


def service_of(request: Request) -> Service:
    """What the application holds."""
    return request.app.state.service


INFER_DOCS: dict[str, Any] = {
    "summary": "Ask a model about one image or several.",
    "tags": ["inference"],
    "responses": {
        200: {"model": InferResponse | list[InferResponse | FailedItem]},
        "4XX": {"model": ErrorBody, "description": "The request's mistake; see /docs/errors."},
        "5XX": {"model": ErrorBody, "description": "The server's."},
    },
    "openapi_extra": {"requestBody": {"required": True, "content": pages.infer_body()}},
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
    service, state = service_of(request), request.scope["state"]
    settings = service.settings
    with service.admission.enter(state["key_name"]) as entry:
        body = await receive_body(request, entry, service.keys, settings, settings.max_body_bytes)
        try:
            fields = await read_fields(request, body, settings)
        except InvalidRequest:
            check_body(request.scope, service.keys, None)  # who has no key is told that first
            raise
        del body
        entry.identify(check_body(request.scope, service.keys, fields.get("api_key")))
        asked = infer_request(fields, settings)
        del fields
        model_id = _model_id(service.models, path_model, asked.model_id)
        state["model"] = model_id
        num_prompts = check(asked, settings)
        entry.grow(num_prompts * service.models.beams(model_id, asked.num_beams))
        work = service.answerer.answer(asked, model_id, key=state["key_name"], help_root=state["help_root"], started=state["started"])
        outcome = await _unless_left(request, work, settings.request_timeout_s)
    return _written(service, outcome, state["started"])


def _written(service: Service, outcome: Outcome, started: float) -> Response:
    """The answer with its headers."""
    service.cold_starts += outcome.is_cold_start
    headers = {
        "x-model-id": outcome.model.id,
        "x-model-cold-start": str(outcome.is_cold_start).lower(),
        "x-model-cold-start-count": str(int(outcome.is_cold_start)),
        "x-inference-engine": "florence2",
        "x-processing-time": f"{time.perf_counter() - started:.6f}",
    }
    if outcome.is_cold_start:
        headers["x-model-load-time"] = f"{outcome.model.load_s:.6f}"
        headers["x-model-load-details"] = json.dumps([{"m": outcome.model.id, "t": round(outcome.model.load_s, 6)}])
    if isinstance(outcome.answers, list):
        content = "[" + ",".join(answer.model_dump_json(exclude_unset=True) for answer in outcome.answers) + "]"
    else:
        content = outcome.answers.model_dump_json(exclude_unset=True)
    return Response(content, media_type="application/json", headers=headers)


def _model_id(models: Models, path_model: str | None, body_model: str | None) -> str:
    """The canonical id of the model that path or body name.

    Raises:
        ValidationFailed: neither does.
        ModelNotFound: there is no such model.
        ModelMismatch: they name two.
    """
    if path_model is None and body_model is None:
        raise missing_model()
    chosen = models.canonical(path_model if path_model is not None else body_model or "")
    if path_model is not None and body_model is not None and models.canonical(body_model) != chosen:
        raise ModelMismatch(f"Model ID mismatch: path specifies {path_model!r} but request body specifies {body_model!r}", field="model_id")
    return chosen


async def _unless_left(request: Request, work: Coroutine[Any, Any, Value], timeout_s: float) -> Value:
    """What ``work`` gives, unless the client leaves or the time is up first; then it is cancelled.

    Raises:
        ClientLeft: nobody is there to read the answer.
        TimedOut: it took too long.
    """
    task, left = asyncio.ensure_future(work), asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({task, left}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
    finally:
        left.cancel()
        task.cancel()
    await asyncio.wait({task})
    if not task.cancelled() and task.exception() is None:
        return task.result()  # it was done a moment before
    if left.done() and not left.cancelled():
        raise ClientLeft("the client closed the connection")
    raise TimedOut(f"the request took longer than {timeout_s:g} s, the longest that this server allows")


async def _left(request: Request) -> None:
    """Return when the client closes the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


@router.get("/model/registry", response_model=Registry, tags=["models"])
async def model_registry(request: Request) -> Registry:
    """The loaded models."""
    service = service_of(request)
    if not service.settings.allow_model_registry:
        raise NotOffered("the list of models is not offered here (setting allow_model_registry)")
    return service.models.registry()


@router.post("/model/add", **MANAGEMENT_DOCS, openapi_extra=pages.json_body(ModelRequest))
async def model_add(request: Request, countinference: bool | None = None, service_secret: str | None = None) -> Registry:
    """Load a model, if it is not loaded yet."""
    service, asked = await _model_request(request)
    await service.models.add(asked.model_id)
    return service.models.registry()


@router.post("/model/remove", **MANAGEMENT_DOCS, openapi_extra=pages.json_body(ModelRequest))
async def model_remove(request: Request) -> Registry:
    """Drop a model, if it is loaded."""
    service, asked = await _model_request(request)
    service.models.remove(asked.model_id)
    return service.models.registry()


@router.post("/model/clear", **MANAGEMENT_DOCS)
async def model_clear(request: Request) -> Registry:
    """Drop all models."""
    service = service_of(request)
    _check_management(service)
    service.models.clear()
    return service.models.registry()


async def _model_request(request: Request) -> tuple[Service, ModelRequest]:
    service = service_of(request)
    _check_management(service)
    body = await receive_body(request, None, service.keys, service.settings, MODEL_BODY_BYTES)
    try:
        fields = parse_object(body)
    except InvalidRequest:
        check_body(request.scope, service.keys, None)
        raise
    check_body(request.scope, service.keys, fields.get("api_key"))
    return service, validate(ModelRequest, fields)


def _check_management(service: Service) -> None:
    if not service.settings.allow_model_management:
        raise NotOffered("loading and dropping models is not offered here (setting allow_model_management)")


@router.get("/", response_class=HTMLResponse, include_in_schema=False)
async def landing(request: Request) -> Response:
    """A page for people who open the address in a browser; the same as JSON for programs that ask for it."""
    service = service_of(request)
    models, root, accepted = service.models.known, service.settings.root_path, request.headers.get("accept", "")
    vary = {"vary": "Accept"}
    if "application/json" in accepted and "text/html" not in accepted:
        links = {name: f"{root}/{path}" for name, path in (("routes", "docs"), ("errors", "docs/errors"), ("readiness", "readiness"))}
        content = {"name": NAME, "version": __version__, "models": models, "notice": service.notice, "links": links}
        return JSONResponse(content, headers=vary)
    return HTMLResponse(pages.landing(models, root, service.notice), headers=vary)


@router.get("/info", response_model=ServerInfo, tags=["server"])
async def info(request: Request) -> ServerInfo:
    """What this is."""
    return ServerInfo(name=NAME, version=__version__, uuid=service_of(request).uuid)


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", tags=["server"])
async def healthz() -> JSONResponse:
    """Whether the process is alive."""
    return JSONResponse({"status": "healthy"})


@router.head("/readiness", include_in_schema=False)
@router.get("/readiness", tags=["server"])
async def readiness(request: Request) -> JSONResponse:
    """Whether requests should be sent here: models loaded, not shutting down."""
    service = service_of(request)
    if service.is_ready:
        return JSONResponse({"status": "ready"})
    reason = "draining" if service.admission.is_draining else service.failure or "loading"
    return JSONResponse({"status": "not ready", "reason": reason}, status_code=503, headers={"retry-after": "1"})


@router.get("/metrics", tags=["server"])
async def metrics(request: Request) -> Response:
    """For Prometheus."""
    service = service_of(request)
    if not service.settings.metrics:
        raise NotOffered("metrics are not offered here (setting metrics)")
    return Response(service.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/docs", response_class=HTMLResponse, include_in_schema=False)
async def docs(request: Request, api_key: str | None = Query(None)) -> HTMLResponse:
    """The description of all routes; a key in the query is passed on to fetch it."""
    return pages.swagger(NAME, api_key, service_of(request).settings.root_path)


@router.get("/docs/errors", response_class=HTMLResponse, include_in_schema=False)
async def docs_errors() -> HTMLResponse:
    """Every error, for the links in answers."""
    return HTMLResponse(pages.errors())
