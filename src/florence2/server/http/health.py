"""The routes for those who run the server: alive, ready, metrics."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from florence2.server.errors import NotOffered
from florence2.server.http.metrics import rendered
from florence2.server.http.state import state_of

METRICS_CONTENT = {kind: {"schema": {"type": "string"}} for kind in ("text/plain", "application/openmetrics-text")}

router = APIRouter(tags=["server"])


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz")
async def healthz() -> JSONResponse:
    """Whether the process is alive."""
    return JSONResponse({"status": "healthy"})


@router.head("/readiness", include_in_schema=False)
@router.get("/readiness", responses={503: {"description": "Not ready; `reason` says why."}})
async def readiness(request: Request) -> JSONResponse:
    """Whether requests should be sent here: models loaded, the engine well, not shutting down."""
    reason = state_of(request).hindrance
    if reason is None:
        return JSONResponse({"status": "ready"})
    return JSONResponse({"status": "not ready", "reason": reason}, status_code=503, headers={"retry-after": "1"})


@router.get("/metrics", response_class=PlainTextResponse, responses={200: {"content": METRICS_CONTENT}})
async def metrics(request: Request) -> Response:
    """For Prometheus: its text, or OpenMetrics where it asks for that."""
    server = state_of(request)
    if not server.settings.metrics:
        raise NotOffered("metrics are not offered here (setting metrics)")
    families = server.metrics.collect() if server.measure_everywhere is None else await server.measure_everywhere()
    content, media_type = rendered(families, request.headers.get("accept", ""))
    return Response(content, headers={"content-type": media_type})
