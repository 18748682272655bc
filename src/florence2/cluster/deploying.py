"""The application, put onto a Ray that runs: deployed, waited for, and why it does not come up.

In: a configuration. Out: nothing, once requests are answered. Doing it again with another configuration replaces what has changed, one
replica after the other. Knows nothing of how Ray was started.
"""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable
from typing import Any

import httpx2
import ray
from ray import serve
from ray.serve.schema import ApplicationStatus

from florence2.cluster.application import APPLICATION, application, check_public
from florence2.cluster.config import ClusterConfig
from florence2.cluster.nodes import has_room_for_more, lacking
from florence2.cluster.serving import http_options_of, present_http_options
from florence2.cluster.started import ClusterFailed
from florence2.server.errors import shortened

LOOK_EACH_S = 0.25
NODES_S = 30.0  # for nodes that an autoscaler may add
_REASON = re.compile(r"(?:ReplicaFailed|InvalidOption|MissingExtra|KeysUnavailable|RuntimeError|\w+Error)(?:\(.*?\))?: (.+)")


def deploy(
    config: ClusterConfig,
    *,
    longest_s: float,
    salt: str = "",
    note: Callable[[str], None] = lambda _: None,
    is_ended: Callable[[], bool] = lambda: False,
) -> None:
    """Deploy the application and wait until it is ready.

    Args:
        config: the configuration.
        longest_s: how long to wait.
        salt: replicas that were made with another one are replaced although nothing has changed.
        note: told what is waited for.
        is_ended: says that nobody waits any more.

    Raises:
        InvalidOption: there are no keys, and nobody has allowed that.
        ClusterFailed: it does not come up, or Ray Serve runs there with another address.
    """
    check_public(config.server_settings)
    _start_serve(config)
    if APPLICATION in serve.status().applications and not has_room_for_more(config, ray.available_resources()):
        note("there is no room for one more replica, so an update ends old ones before it starts new ones; requests may wait meanwhile")
        config = config.without_surge()
    target = serve.RunTarget(application(config, salt=salt), name=APPLICATION, route_prefix="/")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        serve.run_many([target], wait_for_applications_running=False)
    _wait(config, longest_s, note, is_ended)


def _start_serve(config: ClusterConfig) -> None:
    """Start Ray Serve, unless it runs with the address that is wanted.

    Raises:
        ClusterFailed: it runs with another one.
    """
    wanted = http_options_of(config)
    present = present_http_options()
    if present is None:
        try:
            serve.start(proxy_location="EveryNode", http_options=wanted)
        except Exception as error:
            raise ClusterFailed(f"Ray Serve can't be started: {_said_in(str(error)) or _shown(str(error))}") from error
        present = present_http_options() or {}
    if differing := [name for name in ("host", "port") if present.get(name) != wanted[name]]:
        told = ", ".join(f"{name} {present.get(name)} instead of {wanted[name]}" for name in differing)
        raise ClusterFailed(
            f"Ray Serve runs in this cluster already, with {told}, which it can't change while it runs; give its own, or end it with "
            "florence2 cluster stop --all"
        )


def _wait(config: ClusterConfig, longest_s: float, note: Callable[[str], None], is_ended: Callable[[], bool]) -> None:
    """Wait until the application runs with its new replicas."""
    began, told = time.monotonic(), ""
    while not is_ended():
        status = serve.status().applications.get(APPLICATION)
        if status is None:
            raise ClusterFailed("the application was ended while it was starting, by florence2 cluster stop or by Ray's own commands")
        if status.status == ApplicationStatus.RUNNING:
            return
        if status.status == ApplicationStatus.DEPLOY_FAILED:
            raise ClusterFailed(f"the application can't start: {reason_of(status)}")
        waited_s = time.monotonic() - began
        missing = lacking(config, ray.cluster_resources())
        if missing is not None and waited_s > NODES_S:
            raise ClusterFailed(f"there is not enough room in the cluster: {missing}")
        if waited_s > longest_s:
            raise ClusterFailed(f"the application is not ready after {longest_s:g} s (--timeout): {missing or reason_of(status)}")
        now = missing or _failing(status)
        if now is not None and now != told:
            told = now
            note(f"waiting: {now}")
        time.sleep(LOOK_EACH_S)


def _failing(status: Any) -> str | None:
    """Why a replica has failed that is tried again; None: none has."""
    said = " ".join(one.message for one in status.deployments.values())
    return reason_of(status) if "Error" in said or "ReplicaFailed" in said else None


def reason_of(status: Any) -> str:
    """Why an application is not ready: the last error of a replica if one has failed, else what Ray says."""
    messages = [status.message, *(one.message for one in status.deployments.values())]
    for message in messages:
        if found := _said_in(message):
            return found
    return _shown(next((message for message in messages if message), "its replicas are still starting"))


def _said_in(message: str) -> str | None:
    """The error at the end of a message with a traceback; None: there is none."""
    found = _REASON.findall(message)
    return _shown(found[-1]) if found else None


def _shown(text: str) -> str:
    return shortened(" ".join(re.sub(r"\x1b\[[0-9;]*m", "", text).split()), 600)


def wait_for_http(url: str, longest_s: float = 30.0) -> None:
    """Wait until the address answers: the proxy hears of replicas a moment after they are ready.

    Raises:
        ClusterFailed: it does not.
    """
    deadline = time.monotonic() + longest_s
    said = "nothing listens there"
    while time.monotonic() < deadline:
        try:
            response = httpx2.get(f"{url}/readiness", timeout=5, trust_env=False)
            if response.status_code in (200, 401):
                return
            said = f"it answers {response.status_code}"
        except httpx2.HTTPError as error:
            said = str(error) or type(error).__name__
        time.sleep(LOOK_EACH_S)
    raise ClusterFailed(f"{url} does not answer as it should: {said}")
