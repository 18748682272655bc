"""A replica of the ingress: the application of one machine, whose engines are elsewhere.

In: HTTP, by way of Ray Serve. Out: the same. Besides it tells the other replicas what it counts, so that ``/metrics`` of any of them
shows all. Knows nothing of how requests reach a replica with engines.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any

from prometheus_client.core import Metric
from ray import serve
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from florence2.cluster.config import ClusterConfig
from florence2.cluster.everywhere import labelled, merged
from florence2.cluster.replica_engine import find_engine
from florence2.server.app import create_app
from florence2.server.http.gauges import OF_ENGINES
from florence2.server.http.logs import set_up

logger = logging.getLogger(__name__)

ID_HEADER = b"x-request-id"
REPLY_S = 3.0  # a replica that is so slow, or is just ending, is left out of /metrics


class Ingress:
    """One replica; ready once its application is made.

    Args:
        config: the cluster's.
        engines: the handle of the replicas with engines.
    """

    def __init__(self, config: ClusterConfig, engines: Any) -> None:
        settings = config.ingress_settings
        set_up(settings.log_level, settings.log_json)
        self._name = serve.get_replica_context().replica_id.unique_id
        self._engines = engines
        finder = partial(find_engine, engines, asyncio.get_running_loop())
        self._application = create_app(settings, find_engine=finder, does_preload=config.engines.min_replicas > 0)
        self._application.state.server.measure_everywhere = self._everywhere
        self._metrics = self._application.state.server.metrics

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """What answers HTTP; Ray Serve asks for it by this name."""
        return _OneId(self._application)

    def measured(self) -> list[Metric]:
        """What this replica has counted, each value with its name."""
        return labelled(self._metrics.collect(), self._name, without=OF_ENGINES)

    async def _everywhere(self) -> list[Metric]:
        """What all replicas have counted."""
        context = serve.get_replica_context()
        own = serve.get_deployment_handle(context.deployment, context.app_name)
        told = await asyncio.gather(*(_told(handle, REPLY_S) for handle in (own, self._engines)))
        return merged(family for deployment in told for replica in deployment for family in replica)


class _OneId:
    """The application, without the header with the request's id where Ray Serve adds the same one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""

        async def send_without(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = [pair for pair in scope["headers"] if pair[0] == ID_HEADER]
                message = {**message, "headers": [pair for pair in message["headers"] if pair not in given]}
            await send(message)

        await self._app(scope, receive, send_without if scope["type"] == "http" else send)


async def _told(handle: Any, longest_s: float) -> list[list[Metric]]:
    """What each replica of a deployment says that it has counted; those that do not answer are left out."""
    try:
        told = await asyncio.wait_for(
            handle.broadcast("measured").results_async(timeout_s=longest_s, return_exceptions=True), 2 * longest_s
        )
    except Exception as error:
        logger.warning("replicas do not say what they have counted: %s", type(error).__name__)
        return []
    return [one for one in told if isinstance(one, list)]
