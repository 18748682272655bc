"""The application: the parts and the APIs put together.

``create_app(settings)`` makes what an ASGI server runs; given an engine, the application answers with that one instead of loading any.
Knows nothing of processes and signals.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import uuid4

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.routing import Match

from florence2.engine_process.supervisor import EngineProcess
from florence2.engine_stats import EngineStats
from florence2.errors import InvalidRequest
from florence2.extras import requires
from florence2.server import openai, playground, roboflow
from florence2.server.errors import MethodNotAllowed, NotFound
from florence2.server.http import health, pages, usage
from florence2.server.http.absolute_form import AbsoluteForm
from florence2.server.http.api import Api
from florence2.server.http.auth import Gate, Keys, check_anonymous
from florence2.server.http.cors import Preflights, ReadableAnswers, cors_options
from florence2.server.http.gauges import Gauges
from florence2.server.http.large_bodies import BodyThreads
from florence2.server.http.metrics import Metrics
from florence2.server.http.middleware import RequestMiddleware
from florence2.server.http.origins import Origins, is_loopback
from florence2.server.http.request_notes import NotesKeeper
from florence2.server.http.root_path import RootPath
from florence2.server.http.state import SERVER_NAME, ServerState, load_of
from florence2.server.http.tracing import Tracing
from florence2.server.http.url_fetch import make_fetcher
from florence2.server.http.validation import failed_validation
from florence2.server.inference.admission import Admission
from florence2.server.inference.answering_engine import AnsweringEngine
from florence2.server.inference.loading import EngineLoader, RemoteLoader, make_engine_process
from florence2.server.inference.models import EngineFinder, Loader, Models
from florence2.server.inference.observer import Observer
from florence2.server.inference.preloading import Preloading
from florence2.server.inference.service import InferenceService
from florence2.server.memory import FreedMemory
from florence2.server.settings import Settings
from florence2.version import __version__

if TYPE_CHECKING:
    from florence2.server.accounts.accounts import Accounts

logger = logging.getLogger(__name__)

APIS: tuple[Api, ...] = (roboflow.API, openai.API, playground.API)
"""Every API that there is; a server offers those that its settings switch on."""

ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "The request's mistake; see /docs/errors."},
    "5XX": {"description": "The server's; see /docs/errors."},
}
"""What every route may answer besides."""

EXPOSED_HEADERS = ("X-Request-Id", "Retry-After")


def create_app(
    settings: Settings,
    engine: AnsweringEngine | None = None,
    *,
    loader: Loader | None = None,
    find_engine: EngineFinder | None = None,
    does_preload: bool = True,
    on_ready: Callable[[], None] = lambda: None,
    on_failure: Callable[[], None] = lambda: None,
) -> FastAPI:
    """The application.

    Args:
        settings: everything that can be set.
        engine: answers for every model, and stays open when the application ends. None: models are loaded.
        loader: makes an engine of an alias, hub id or folder. None: as ``florence2.load`` does, with the settings' device and precision.
        find_engine: finds the engine of a model by its id, where others load the models. None: they are loaded.
        does_preload: with ``find_engine``: the application is ready once the models are there that the settings name.
        on_ready: called when the models that are named at the start are loaded.
        on_failure: called when one of them can't be.

    Raises:
        InvalidOption: keys are needed and there are none, or their file can't be read.
        MissingExtra: ``otlp_endpoint`` is set, and the extra ``otel`` is not installed.
    """
    if find_engine is not None:
        models, process = Models(settings, None, find_engine=find_engine, does_preload=does_preload, api_ids=api_ids_of(settings)), None
    else:
        models, process = _models(settings, engine, loader)
    server = _server_state(settings, models, process)
    app = FastAPI(
        title=SERVER_NAME,
        version=__version__,
        servers=[{"url": settings.root_path}] if settings.root_path else None,
        docs_url=None,
        redoc_url=None,
        responses=ERRORS,
        lifespan=_lifespan(server, on_ready, on_failure),
    )
    app.state.server = server
    for router in _routers(server):
        app.include_router(router)
    app.mount(pages.ASSETS, pages.asset_files())
    app.add_exception_handler(HTTPException, _raise_own)
    app.add_exception_handler(RequestValidationError, _raise_own)
    _add_middleware(app, server)
    return app


def _add_middleware(app: FastAPI, server: ServerState) -> None:
    """Put the middleware around the routes; the last one added is the outermost."""
    settings, keys, apis = server.settings, server.keys, server.apis
    meter = None if server.accounts is None else server.accounts.meter
    app.add_middleware(Gate, keys=keys, apis=apis, settings=settings)
    cors = cors_options(settings, [*(name for api in apis for name in api.exposed_headers), *EXPOSED_HEADERS])
    app.add_middleware(Origins, settings=settings, has_keys=not keys.is_open)
    app.add_middleware(Preflights, **cors)
    seen = {"metrics": server.metrics, "admission": server.admission, "tracing": server.tracing, "meter": meter}
    app.add_middleware(RequestMiddleware, settings=settings, apis=apis, **seen)
    app.add_middleware(ReadableAnswers, **cors)
    app.add_middleware(RootPath, prefix=settings.root_path)
    app.add_middleware(AbsoluteForm)


def _server_state(settings: Settings, models: Models, process: EngineProcess | None) -> ServerState:
    """The parts, made for each other."""
    accounts = _open_accounts(settings)
    keys = Keys(settings, accounts)
    apis = _offered(settings)
    if keys.is_open and not is_loopback(settings.host):
        check_anonymous(settings)

    admission = Admission(settings, partial(load_of, models))
    metrics = Metrics()
    uuid = uuid4().hex[:6]
    tracing = None if settings.otlp_endpoint is None else Tracing(settings, uuid)
    inference = InferenceService(settings, models, _observers(apis, models, metrics, tracing))
    fetcher = make_fetcher(settings)
    server = ServerState(
        *(
            settings,
            apis,
            models,
            keys,
            admission,
            metrics,
            fetcher,
            inference,
            BodyThreads(),
            uuid,
            Preloading(models, process),
            tracing,
            accounts,
            process,
        )
    )
    metrics.registry.register(Gauges(server))
    return server


def _observers(apis: Sequence[Api], models: Models, metrics: Metrics, tracing: Tracing | None) -> list[Observer]:
    """What is told of each answer."""

    def loaded() -> dict[str, float]:
        return {model.id: model.load_s for model in models.loaded}

    of_apis = [api.observe(metrics.registry, loaded) for api in apis if api.observe is not None]
    return [metrics, NotesKeeper(), *of_apis, *([] if tracing is None else [tracing])]


def _open_accounts(settings: Settings) -> Accounts | None:
    """Keys, limits and usage, where there is a database for them. Its packages are an extra."""
    if settings.database is None:
        return None
    with requires("keys", "the setting database"):
        from florence2.server.accounts.accounts import Accounts, AccountSettings
    limits_url = None if settings.limits_url is None else settings.limits_url.get_secret_value()
    given = AccountSettings(
        *(settings.database.get_secret_value(), limits_url, settings.journal_folder, settings.keys_outage_s, settings.usage)
    )
    return Accounts(given)


def api_ids_of(settings: Settings) -> dict[str, str]:
    """Ids by which the offered APIs know models, each with the alias that it means."""
    return {name: alias for api in _offered(settings) for name, alias in api.model_ids.items()}


def _offered(settings: Settings) -> list[Api]:
    return [api for api in APIS if api.is_offered(settings)]


def _models(settings: Settings, engine: AnsweringEngine | None, loader: Loader | None) -> tuple[Models, EngineProcess | None]:
    """The models, and the process that they run in where the settings want one and nothing else makes engines."""
    api_ids = api_ids_of(settings)
    if engine is not None:
        models = Models(settings, loader or (lambda _: _Borrowed(engine)), api_ids=api_ids)
        models.adopt(_Borrowed(engine))
        return models, None
    if loader is not None:
        return Models(settings, loader, api_ids=api_ids), None
    if settings.engine_process:
        process = make_engine_process(settings)
        return Models(settings, RemoteLoader(settings, process), api_ids=api_ids), process
    own = EngineLoader(settings)
    return Models(settings, own, api_ids=api_ids, stop_loading=own.stop), None


def _lifespan(
    server: ServerState, on_ready: Callable[[], None], on_failure: Callable[[], None]
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        def ready() -> None:
            if server.notice is not None:
                logger.info(server.notice)
            on_ready()

        if server.accounts is not None:
            server.accounts.start()
        loading = asyncio.create_task(server.preloading.run(ready, on_failure))
        giving_back = asyncio.create_task(_keep_giving_back(server))
        try:
            yield
        finally:
            server.admission.is_draining = True
            loading.cancel()
            giving_back.cancel()
            await server.wait_until_sent()
            await server.close()

    return lifespan


async def _keep_giving_back(server: ServerState) -> None:
    """Give memory back to the system that is not needed any more, until cancelled."""
    await FreedMemory(lambda: server.admission.num_bytes, server.inference.end_idle).keep_giving_back()


async def _raise_own(request: HTTPConnection, error: Exception) -> NoReturn:
    """Raise errors of the framework as errors of this project; ``RequestMiddleware`` writes them."""
    if isinstance(error, RequestValidationError):
        raise failed_validation(error.errors())
    if not isinstance(error, HTTPException):
        raise error
    if error.status_code == 404:
        raise NotFound("there is no such path; see /docs")
    if error.status_code == 405:
        allowed = _methods_at(request)
        raise MethodNotAllowed(f"this path is called with {allowed or 'another method'}; see /docs", allowed)
    raise InvalidRequest(str(error.detail))


def _methods_at(request: HTTPConnection) -> str:
    """The methods that the path of a request is called with, by all routes that have it."""
    routes = [route for router in _routers(request.app.state.server) for route in router.routes]
    fitting = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return ", ".join(sorted({method for route in fitting for method in getattr(route, "methods", None) or ()}))


def _routers(server: ServerState) -> list[APIRouter]:
    """All routes, but for those of files."""
    return [*(api.router for api in server.apis), health.router, usage.router, pages.router]


class _Borrowed:
    """An engine that belongs to someone else: dropping the model does not close it."""

    def __init__(self, engine: AnsweringEngine) -> None:
        self._engine = engine
        self.prepare, self.submit_many, self.token_bytes = engine.prepare, engine.submit_many, engine.token_bytes
        self.add_adapter, self.remove_adapter = engine.add_adapter, engine.remove_adapter

    @property
    def num_beams(self) -> int:
        """The engine's own."""
        return self._engine.num_beams

    @property
    def max_answer_tokens(self) -> int:
        """The engine's own."""
        return self._engine.max_answer_tokens

    def stats(self) -> EngineStats:
        """The engine's own."""
        return self._engine.stats()

    def close(self, *, cancel: bool = False) -> None:
        """Nothing."""
