"""What Ray Serve of a cluster does: its address, its replicas, its end.

In: a connection to Ray. Out: values for people and programs. Knows nothing of deploying.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.context import _get_global_client  # Ray has no public way to the address that it serves at (2.60)

from florence2.cluster.config import ClusterConfig
from florence2.cluster.started import ClusterFailed
from florence2.server.profiles import EVERY_ADDRESS

KEEP_ALIVE_S = 75  # longer than load balancers keep idle connections, so that none is closed under a request
STOP_S = 60.0


@dataclass(frozen=True)
class Replicas:
    """The replicas of a deployment.

    Attributes:
        wanted: so many there shall be; None: Ray does not say.
        states: how many are in each state, by Ray's names.
        message: what Ray says of them; "" if all is well.
    """

    wanted: int | None
    states: dict[str, int]
    message: str = ""


@dataclass(frozen=True)
class Report:
    """What ``florence2 cluster status`` says.

    Attributes:
        status: of the application, by Ray's names; None: it is not there.
        url: where it is reached from this machine; None: Ray Serve does not run.
        message: what Ray says of the application; "" if all is well.
        replicas: by deployment.
        nodes: how many nodes there are.
        resources: CPUs and GPUs of all of them together.
        free: those that nobody has taken.
        proxies: how many nodes have a proxy that takes requests.
        others: other applications of the same Ray Serve.
    """

    status: str | None
    url: str | None
    message: str = ""
    replicas: dict[str, Replicas] = field(default_factory=dict)
    nodes: int = 0
    resources: dict[str, float] = field(default_factory=dict)
    free: dict[str, float] = field(default_factory=dict)
    proxies: int = 0
    others: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def http_options_of(config: ClusterConfig) -> dict[str, Any]:
    """What Ray Serve is to listen at."""
    settings = config.server_settings
    options: dict[str, Any] = {"host": settings.host, "port": settings.port, "keep_alive_timeout_s": KEEP_ALIVE_S}
    return options


def present_http_options() -> dict[str, Any] | None:
    """What Ray Serve listens at; None: it does not run."""
    client = _get_global_client(raise_if_no_controller_running=False)
    return None if client is None else client.http_config.model_dump(include={"host", "port", "keep_alive_timeout_s"})


def url_of(host: str, port: int, root_path: str = "") -> str:
    """An address to call from this machine."""
    shown = "localhost" if host in (EVERY_ADDRESS, "::", "127.0.0.1", "") else f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}{root_path}"


def report_of(application: str) -> Report:
    """What the application does."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    there = {"nodes": len(alive), "resources": _counted(ray.cluster_resources()), "free": _counted(ray.available_resources())}
    options, status = present_http_options(), serve.status()
    if options is None:
        return Report(None, None, **there)
    own = status.applications.get(application)
    others = tuple(sorted(status.applications.keys() - {application}))
    proxies = sum(one == "HEALTHY" for one in status.proxies.values())
    url = url_of(options["host"], options["port"])
    if own is None:
        return Report(None, url, proxies=proxies, others=others, **there)
    wanted = _wanted(application)
    replicas = {
        name: Replicas(wanted.get(name), {str(state): number for state, number in one.replica_states.items() if number}, one.message)
        for name, one in own.deployments.items()
    }
    return Report(str(own.status.value), url, own.message, replicas, proxies=proxies, others=others, **there)


def _wanted(application: str) -> dict[str, int]:
    client = _get_global_client(raise_if_no_controller_running=False)
    details = client.get_serve_details() if client is not None else {}
    deployments = details.get("applications", {}).get(application, {}).get("deployments", {})
    return {name: one["target_num_replicas"] for name, one in deployments.items() if one.get("target_num_replicas") is not None}


def _counted(resources: Mapping[str, float]) -> dict[str, float]:
    return {name: resources.get(name, 0.0) for name in ("CPU", "GPU")}


def stop(application: str, *, is_all: bool) -> bool:
    """End the application; requests under way are answered first.

    Args:
        application: its name.
        is_all: end Ray Serve as well, with all other applications.

    Returns:
        Whether there was something to end.

    Raises:
        ClusterFailed: it does not end.
    """
    client = _get_global_client(raise_if_no_controller_running=False)
    if client is None or (not is_all and application not in serve.status().applications):
        return False
    if is_all:
        with suppress(RayActorError):
            client.shutdown(timeout_s=STOP_S)
        return True
    client.delete_apps([application], blocking=False)
    deadline = time.monotonic() + STOP_S
    while application in serve.status().applications:
        if time.monotonic() > deadline:
            raise ClusterFailed(f"the application does not end within {STOP_S:g} s; see florence2 cluster status")
        time.sleep(0.1)
    return True
