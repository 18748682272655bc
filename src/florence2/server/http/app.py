"""The application: the parts put together.

``create_app(settings)`` gives what an ASGI server runs; with ``engine`` it answers with that one instead of loading any. Knows
nothing of processes and signals.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import NoReturn
from uuid import uuid4

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection

from florence2.errors import Florence2Error, InvalidRequest
from florence2.server.errors import MethodNotAllowed, NotFound
from florence2.server.http.auth import Gate, Keys
from florence2.server.http.metrics import Metrics
from florence2.server.http.middleware import Envelope
from florence2.server.http.origins import Origins, is_loopback
from florence2.server.http.pages import ASSETS, asset_files
from florence2.server.http.root_path import RootPath
from florence2.server.http.url_fetch import Fetcher
from florence2.server.inference.admission import Admission
from florence2.server.inference.loading import EngineLoader
from florence2.server.inference.models import AnsweringEngine, Loader, Models
from florence2.server.inference.service import Answerer
from florence2.server.roboflow.requests import failed_validation
from florence2.server.roboflow.routes import NAME, Service, router
from florence2.server.settings import Settings
from florence2.version import __version__

logger = logging.getLogger(__name__)

EXPOSED_HEADERS = (
    *("X-Processing-Time", "X-Model-Cold-Start", "X-Model-Cold-Start-Count", "X-Model-Load-Time"),
    *("X-Model-Load-Details", "X-Model-Id"),
    *("X-Request-Id", "Retry-After"),
)


def create_app(
    settings: Settings,
    engine: AnsweringEngine | None = None,
    *,
    loader: Loader | None = None,
    on_ready: Callable[[], None] = lambda: None,
    on_failure: Callable[[], None] = lambda: None,
) -> FastAPI:
    """The application.

    Args:
        settings: everything that can be set.
        engine: answers for every model, and stays open when the application ends. None: models are loaded.
        loader: makes an engine of an alias, hub id or folder. None: ``florence2.load`` with the settings' device and precision.
        on_ready: called when the models that are named at the start are loaded.
        on_failure: called when one of them can't be.

    Raises:
        InvalidOption: keys are needed and there are none, or their file can't be read.
    """
    service = _service(settings, engine, loader)
    app = FastAPI(
        title=NAME,
        version=__version__,
        servers=[{"url": settings.root_path}] if settings.root_path else None,
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan(service, on_ready, on_failure),
    )
    app.state.service = service
    app.include_router(router)
    app.mount(ASSETS, asset_files())
    app.add_exception_handler(HTTPException, _raise_own)
    app.add_exception_handler(RequestValidationError, _raise_own)
    # The last added is the outermost.
    app.add_middleware(Gate, keys=service.keys, settings=settings)
    app.add_middleware(Origins, settings=settings, has_keys=not service.keys.is_open)
    app.add_middleware(Envelope, settings=settings, metrics=service.metrics, admission=service.admission)
    everyone = "*" in settings.allow_origins
    app.add_middleware(
        CORSMiddleware,
        allow_origins=settings.allow_origins,
        allow_credentials=not everyone,  # nothing here is told by cookies; a page that anybody wrote gets nothing by its reader's
        allow_methods=["*"],
        allow_headers=["*"],
        expose_headers=EXPOSED_HEADERS,
    )
    app.add_middleware(RootPath, prefix=settings.root_path)
    return app


def _service(settings: Settings, engine: AnsweringEngine | None, loader: Loader | None) -> Service:
    """The parts, made for each other."""
    keys = Keys(settings)
    own = EngineLoader(settings)
    models = Models(settings, (loader or own) if engine is None else lambda _: _Borrowed(engine), stop_loading=own.stop)
    if engine is not None:
        models.adopt(_Borrowed(engine))
    if keys.is_open and not is_loopback(settings.host):
        logger.warning("there are no keys, and %s can be reached by others: everybody may use this server", settings.host)
    admission = Admission(settings)
    metrics = Metrics(lambda: admission.taken, lambda: {model.id: model.load_s for model in models.loaded})
    fetcher = Fetcher(settings)
    return Service(settings, models, keys, admission, metrics, Answerer(settings, models, metrics, fetcher), uuid4().hex[:6])


def _lifespan(
    service: Service, on_ready: Callable[[], None], on_failure: Callable[[], None]
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(_preload(service, on_ready, on_failure))
        try:
            yield
        finally:
            service.admission.is_draining = True
            loading.cancel()
            # Whoever was to be answered has been by now, or nobody waits for it any more.
            await service.models.close(cancel=True)
            await service.answerer.close()

    return lifespan


async def _preload(service: Service, on_ready: Callable[[], None], on_failure: Callable[[], None]) -> None:
    try:
        await service.models.preload()
    except Florence2Error as error:
        service.failure = "a model could not be loaded"
        logger.critical("the server can't start: %s", error.message)
        on_failure()
    else:
        on_ready()
        logger.info("ready: %s", ", ".join(model.id for model in service.models.loaded))
        if service.notice is not None:
            logger.info(service.notice)


async def _raise_own(_: HTTPConnection, error: Exception) -> NoReturn:
    """Errors of the framework as errors of this project; ``Envelope`` writes them."""
    if isinstance(error, RequestValidationError):
        raise failed_validation(error.errors())
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code == 404:
        raise NotFound("there is no such path; see /docs")
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        raise MethodNotAllowed(f"this path is called with {allowed or 'another method'}; see /docs", allowed)
    raise InvalidRequest(str(error.detail))


class _Borrowed:
    """An engine that belongs to someone else: dropping the model does not close it."""

    def __init__(self, engine: AnsweringEngine) -> None:
        self.submit = engine.submit
        self.submit_many = engine.submit_many
        # A simple stand-in for an engine need not tokenize ahead, nor know how it searches.
        self.prepare = getattr(engine, "prepare", lambda prompt: prompt)
        self.num_beams = getattr(engine, "num_beams", 1)

    def close(self, *, cancel: bool = False) -> None:
        """Nothing."""
