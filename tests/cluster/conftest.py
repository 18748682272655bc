"""A real Ray for all tests of the cluster, and the server on it with the demo model."""

from __future__ import annotations

import gc
import os
import tempfile
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from florence2.cluster.config import ClusterConfig, cluster_config

ray = pytest.importorskip("ray", reason="Ray has no wheel for this Python and system; the cluster is not tested")


FOLDER = Path(__file__).parent
RUNNING = ExitStack()
"""Ray and what runs on it, for the tests of this folder alone: idle it still takes a third of a processor."""


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    if nextitem is None or FOLDER not in nextitem.path.parents:
        RUNNING.close()


@pytest.fixture(scope="session")
def ray_cluster() -> Any:
    """Ray, started for the tests, with as many cores as they ask for; a ``Cluster``, which takes further nodes."""
    from ray.cluster_utils import Cluster

    from florence2.cluster.started import DRAIN, choose_for_here

    RUNNING.callback(_collect)
    folder = RUNNING.enter_context(tempfile.TemporaryDirectory(prefix="f2-", dir="/tmp"))
    patch = RUNNING.enter_context(pytest.MonkeyPatch.context())
    environment = {DRAIN: "0.5", "RAY_AUTH_MODE": "disabled", **os.environ}  # Ray has read the mode when it was imported
    environment["RAY_prestart_worker_first_driver"] = "0"  # a worker for each core otherwise, at once
    environment["RAY_health_check_period_ms"] = "500"  # a node that was killed is noticed after five of them
    RUNNING.enter_context(choose_for_here(environment, Path(folder)))
    for name, value in environment.items():
        patch.setenv(name, value)
    own = {"num_cpus": 16, "include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
    cluster = Cluster(initialize_head=True, head_node_args=own)
    RUNNING.callback(cluster.shutdown)
    ray.init(cluster.address, log_to_driver=False)
    RUNNING.callback(ray.shutdown)
    return cluster


def _collect() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # Ray ends its processes and does not wait for all of them
        gc.collect()


@pytest.fixture(scope="session")
def on_ray(ray_cluster: Any) -> None:
    """Ray is running."""


@pytest.fixture(scope="session")
def serve_port(on_ray: None) -> int:
    """The port of Ray Serve, which is started."""
    from ray import serve

    from florence2.cluster.started import free_port

    port = free_port()
    # One proxy: those of several nodes on one machine would want one port.
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
    return port


def main_config(port: int, **settings: Any) -> ClusterConfig:
    """The configuration of the server on the cluster."""
    return cluster_config({"settings": {"host": "127.0.0.1", "port": port, "log_level": "warning", **settings}}, "the test")


@pytest.fixture(scope="session")
def server_url(serve_port: int) -> str:
    """The server on the cluster: one ingress, one replica with the demo model."""
    from florence2.cluster.deploying import deploy

    deploy(main_config(serve_port), longest_s=60)
    return f"http://127.0.0.1:{serve_port}"
