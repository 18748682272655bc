"""What the routes of one application share. Knows no API."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from prometheus_client.core import Metric
from starlette.requests import Request
from starlette.types import Scope

from florence2.background import in_thread
from florence2.engine_process.supervisor import EngineProcess
from florence2.engine_stats import EngineStats
from florence2.server.accounts.key_info import KeyInfo
from florence2.server.http.api import Api
from florence2.server.http.auth import Keys
from florence2.server.http.deadline import seconds_left
from florence2.server.http.large_bodies import BodyThreads
from florence2.server.http.metrics import Metrics
from florence2.server.http.tracing import Tracing
from florence2.server.inference.adapters import computing_engine
from florence2.server.inference.admission import Admission, Permit
from florence2.server.inference.models import Models
from florence2.server.inference.preloading import Preloading
from florence2.server.inference.service import InferenceService
from florence2.server.settings import Settings
from florence2.url_fetch import Fetcher
from florence2.weights.aliases import DEMO, DEMO_IS, REAL

if TYPE_CHECKING:
    from florence2.server.accounts.accounts import Accounts

logger = logging.getLogger(__name__)

SERVER_NAME = "florence2 server"
LAST_PARTS_S = 2.0  # longest wait at the end for responses that are cut off

Held = TypeVar("Held")


@dataclass
class ServerState:
    """The parts of one application.

    Attributes:
        apis: the APIs that it offers.
        uuid: a random name of this process.
        tracing: makes traces; None: nobody wants them.
        accounts: keys, limits and usage of a database; None: there is none.
        engine_process: the process that its models run in; None: they run in this one.
        preloading: loads the models that are named at the start.
        measure_everywhere: the metrics of this process and of others that serve with it; None: it is alone.
    """

    settings: Settings
    apis: Sequence[Api]
    models: Models
    keys: Keys
    admission: Admission
    metrics: Metrics
    fetcher: Fetcher
    inference: InferenceService
    body_threads: BodyThreads
    uuid: str
    preloading: Preloading
    tracing: Tracing | None = None
    accounts: Accounts | None = None
    engine_process: EngineProcess | None = None
    measure_everywhere: Callable[[], Awaitable[list[Metric]]] | None = None

    @property
    def notice(self) -> str | None:
        """A sentence about the model that is loaded because no setting names one; None: a setting does."""
        if not self.settings.is_demo_by_default:
            return None
        real = "" if self.settings.loadable == "named" else f"; {REAL} answers by its own name, and is downloaded at its first request"
        return f"no --model is given, so {DEMO} is loaded, {DEMO_IS}; only requests for {DEMO} reach it{real} (--model {REAL} at the start)"

    @property
    def is_ready(self) -> bool:
        """Whether requests should be sent here."""
        return self.hindrance is None

    @property
    def hindrance(self) -> str | None:
        """Why no requests should be sent here; None: they should."""
        process = self.engine_process
        if self.admission.is_draining:
            return "draining"
        if process is not None and (process.state == "restarting" or (process.num_restarts and not self.models.is_preloaded)):
            return self.preloading.failure or "engine restarting"
        if self.preloading.failure is not None:
            return self.preloading.failure
        if (process is not None and not process.does_answer) or self._has_long_pass:
            return "engine does not answer"
        return None if self.models.is_preloaded else "loading"

    @property
    def _has_long_pass(self) -> bool:
        """Whether a model is in a pass that lasts suspiciously long."""
        longest_s = self.settings.engine_step_timeout_s / 2
        for model in self.models.loaded:
            with suppress(Exception):  # an engine that is ending does not say
                if model.engine.stats().pass_age_s > longest_s:
                    return True
        return False

    async def wait_until_sent(self) -> None:
        """Let responses that were cut off send their last part, which says why: the process ends as soon as the application has."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_PARTS_S):
                while self.admission.num_slots:
                    await asyncio.sleep(0.01)

    async def close(self) -> None:
        """Close models, threads and connections; requests have been answered by now, or are cancelled."""
        await self.models.close(cancel=True)
        if self.engine_process is not None:
            await in_thread("florence2-stopper", self.engine_process.stop)
        self.inference.close()
        self.body_threads.close()
        await self.fetcher.close()
        if self.tracing is not None:
            await self.tracing.close()
        if self.accounts is not None:
            await self.accounts.close()


def load_of(models: Models) -> EngineStats:
    """What waits and runs in the engines; one that is ending or dead can't say, and counts as idle.

    Of several engines only the bytes are told: a request that waits for one of them says nothing of how long it takes at another.
    """
    told: list[EngineStats] = []
    for engine in {id(engine): engine for engine in (computing_engine(model.engine) for model in models.loaded)}.values():
        try:
            told.append(engine.stats())
        except Exception:
            logger.debug("an engine does not say what waits", exc_info=True)
    return told[0] if len(told) == 1 else EngineStats(waiting_bytes=sum(stats.waiting_bytes for stats in told))


def state_of(request: Request) -> ServerState:
    """The parts of the application that got a request."""
    return request.app.state.server


def admit(request: Request) -> Permit:
    """Admit a request until the last byte of its response is sent, or its client leaves.

    Raises:
        Draining: the server is about to end.
        Overloaded: there is no room left, or the request can't be answered in its time.
    """
    key: KeyInfo | None = request.scope["state"]["key"]
    name, max_slots = (None, None) if key is None else (key.name, key.max_slots)
    return hold(request.scope, state_of(request).admission.enter(name, max_slots, partial(seconds_left, request.scope)))


def hold(scope: Scope, context: AbstractContextManager[Held]) -> Held:
    """Enter a context that is left once the last byte of the response is sent, or the client leaves."""
    return scope["state"]["until_sent"].enter_context(context)
