"""The application of Ray Serve: an ingress in front of replicas with engines.

``build`` makes it of a configuration; it is also the import path for ``serve run`` and KubeRay. Knows nothing of starting Ray.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ray import serve

from florence2.cluster.config import ClusterConfig, EnginesConfig, cluster_config
from florence2.cluster.routing import router_config
from florence2.cluster.scaling import autoscaling

if TYPE_CHECKING:
    from fastapi import FastAPI
    from ray.serve import Application

APPLICATION = "florence2"
GRACE_S = 30.0  # a replica that is to end answers what it has first
_COMMON: dict[str, Any] = {
    "graceful_shutdown_timeout_s": GRACE_S,
    "graceful_shutdown_wait_loop_s": 0.5,
    "logging_config": {"enable_access_log": False},  # the server has its own
}


def build(args: Mapping[str, Any]) -> Application:
    """The application of a configuration.

    Args:
        args: a ``ClusterConfig`` as a mapping.

    Raises:
        InvalidOption: a name or value is wrong.
    """
    return application(cluster_config(args, "the application's arguments"))


def application(config: ClusterConfig, engines_class: type | None = None) -> Application:
    """The same of a configuration that was read already.

    Args:
        config: the configuration.
        engines_class: what the replicas with engines are made of; None: ``Engines``.
    """
    ingress: Any = serve.deployment(
        serve.ingress(_app_of(config))(_Ingress),
        name="Ingress",
        max_ongoing_requests=config.ingress.max_ongoing,
        ray_actor_options={"num_cpus": config.ingress.num_cpus},
        num_replicas=config.ingress.min_replicas,
        **_COMMON,
    )
    return ingress.bind(engines(config, engines_class))


def engines(config: ClusterConfig, engines_class: type | None = None) -> Application:
    """The replicas with engines, for an ingress to be bound to."""
    from florence2.cluster.replica import Engines

    deployment: Any = serve.deployment(
        engines_class or Engines,
        name="Engines",
        max_ongoing_requests=config.engines.max_ongoing,
        ray_actor_options={"num_cpus": config.engines.num_cpus, "num_gpus": config.engines.num_gpus},
        request_router_config=router_config(config.routing, config.engines.target_rows),
        **_number(config.engines),
        **_COMMON,
    )
    return deployment.bind(config)


def _number(engines: EnginesConfig) -> dict[str, Any]:
    """The number of replicas with engines."""
    if engines.min_replicas == engines.max_replicas:
        return {"num_replicas": engines.max_replicas}
    delays = {"upscale_delay_s": engines.upscale_delay_s, "downscale_delay_s": engines.downscale_delay_s}
    return {"autoscaling_config": autoscaling(engines.min_replicas, engines.max_replicas, engines.target_rows, **delays)}


class _Ingress:
    """What Ray Serve makes an ingress of.

    Args:
        engines: the handle of the replicas, by which they belong to the application.
    """

    def __init__(self, engines: Any) -> None:
        pass


def _app_of(config: ClusterConfig) -> Callable[[], FastAPI]:
    """What makes the application of an ingress, in its replica."""

    def make() -> FastAPI:
        from florence2.cluster.replica_engine import find_engine
        from florence2.server.app import create_app

        handle = serve.get_deployment_handle("Engines", APPLICATION)
        finder = partial(find_engine, handle, asyncio.get_running_loop())
        return create_app(config.ingress_settings, find_engine=finder, does_preload=config.engines.min_replicas > 0)

    return make
