"""The application of Ray Serve: an ingress in front of replicas with engines.

``build`` makes it of a configuration; it is also the import path for ``serve run`` and KubeRay. Knows nothing of starting Ray.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ray import serve

from florence2.cluster.config import ClusterConfig, EnginesConfig, IngressConfig, cluster_config
from florence2.cluster.ingress import Ingress
from florence2.cluster.routing import router_config
from florence2.cluster.scaling import autoscaling
from florence2.server.http.auth import check_anonymous
from florence2.server.http.origins import is_loopback
from florence2.server.settings import Settings

if TYPE_CHECKING:
    from ray.serve import Application

APPLICATION = "florence2"
GRACE_S = 30.0  # a replica that is to end answers what it has first
UPSCALE_DELAY_S = 5.0  # of the ingress
_COMMON: dict[str, Any] = {
    "graceful_shutdown_timeout_s": GRACE_S,
    "graceful_shutdown_wait_loop_s": 0.1,
    "max_constructor_retry_count": 3,  # a model that can't be loaded can't be loaded the twentieth time either
    # The server has a log of its own. Without an access log Serve makes the lines all the same, unless they are below its level.
    "logging_config": {"enable_access_log": False, "log_level": "WARNING"},
}


def build(args: Mapping[str, Any]) -> Application:
    """The application of a configuration.

    Args:
        args: a ``ClusterConfig`` as a mapping.

    Raises:
        InvalidOption: a name or value is wrong, or there are no keys and nobody has allowed that.
    """
    config = cluster_config(args, "the application's arguments")
    check_public(config.server_settings)
    return application(config)


def check_public(settings: Settings) -> None:
    """Refuse an application without keys that other machines reach, unless that is allowed.

    Raises:
        InvalidOption: it is not allowed.
    """
    if not settings.has_keys and not is_loopback(settings.host):
        check_anonymous(settings)


def application(config: ClusterConfig, engines_class: type | None = None, *, salt: str = "") -> Application:
    """The same of a configuration that was read already.

    Args:
        config: the configuration.
        engines_class: what the replicas with engines are made of; None: ``Engines``.
        salt: replicas that were made with another one are replaced although nothing has changed.
    """
    ingress: Any = serve.deployment(
        serve.ingress()(Ingress),
        name="Ingress",
        max_ongoing_requests=config.ingress.max_ongoing,
        ray_actor_options={"num_cpus": config.ingress.num_cpus, "runtime_env": {"env_vars": _environment(config.server_settings)}},
        max_surge_percent=config.ingress.max_surge_percent,
        **_number_of_ingress(config.ingress),
        **_COMMON,
    )
    # Ray keeps replicas whose version it knows. It has a version for each deployment, and no public way to say it (2.60).
    ingress._version = config.version_of(config.ingress_settings, str(config.engines.min_replicas > 0), salt)
    return ingress.bind(config.with_settings(config.server_settings), engines(config, engines_class, salt=salt))


def engines(config: ClusterConfig, engines_class: type | None = None, *, salt: str = "") -> Application:
    """The replicas with engines, for an ingress to be bound to."""
    from florence2.cluster.replica import Engines

    deployment: Any = serve.deployment(
        engines_class or Engines,
        name="Engines",
        max_ongoing_requests=config.engines.max_ongoing,
        ray_actor_options={"num_cpus": config.engines.num_cpus, "num_gpus": config.engines.num_gpus},
        request_router_config=router_config(config.routing, config.engines.target_rows),
        max_surge_percent=config.engines.max_surge_percent,
        **_number(config.engines),
        **_COMMON,
    )
    deployment._version = config.version_of(config.engine_settings, str(config.engines.models_per_replica), salt)
    return deployment.bind(config.with_settings(config.engine_settings))


def _number(engines: EnginesConfig) -> dict[str, Any]:
    """The number of replicas with engines."""
    if engines.min_replicas == engines.max_replicas:
        return {"num_replicas": engines.max_replicas}
    delays = {"upscale_delay_s": engines.upscale_delay_s, "downscale_delay_s": engines.downscale_delay_s}
    return {"autoscaling_config": autoscaling(engines.min_replicas, engines.max_replicas, engines.target_rows, **delays)}


def _number_of_ingress(ingress: IngressConfig) -> dict[str, Any]:
    """The number of replicas of the ingress."""
    if ingress.min_replicas == ingress.max_replicas:
        return {"num_replicas": ingress.max_replicas}
    bounds = {"min_replicas": ingress.min_replicas, "max_replicas": ingress.max_replicas}
    return {"autoscaling_config": {**bounds, "target_ongoing_requests": ingress.target_ongoing, "upscale_delay_s": UPSCALE_DELAY_S}}


def _environment(settings: Settings) -> dict[str, str]:
    """What uvicorn reads in a replica of the ingress: whose X-Forwarded-For is believed. By default it believes its own machine."""
    return {"FORWARDED_ALLOW_IPS": ",".join(settings.trusted_proxies)}
