"""A Ray cluster of several nodes on this machine for benchmarks, with the application of ``florence2 cluster serve`` on it.

Knows its processes: those of replicas by the deployment that they belong to, those of nodes, so that they can be killed from outside.
"""

from __future__ import annotations

import os
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fixtures.ray_processes import descendants, name_of, replicas
from florence2.cluster.config import ClusterConfig, cluster_config
from florence2.cluster.started import choose_for_here, free_port

READY_S = 120.0
REPOSITORY = Path(__file__).resolve().parents[1]


class Clustered:
    """The application on a cluster of its own.

    Args:
        nodes: the cores of each node, as Ray is to believe; the first has the ingress's share too.

    Attributes:
        port: where it listens on 127.0.0.1.
        cluster: Ray's own handle of the nodes.
    """

    def __init__(self, nodes: list[int]) -> None:
        self._num_served = 0
        self.port = free_port()
        self._folder = tempfile.TemporaryDirectory(prefix="f2c", dir="/tmp", ignore_cleanup_errors=True)
        os.environ |= {
            "RAY_AUTH_MODE": "disabled",
            "RAY_prestart_worker_first_driver": "0",
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }
        self._ports = choose_for_here(os.environ, Path(self._folder.name))
        import ray
        from ray.cluster_utils import Cluster

        first, *others = nodes
        own = {"num_cpus": first, "temp_dir": self._folder.name, "include_dashboard": False}
        self.cluster = Cluster(initialize_head=True, head_node_args=own)
        self.nodes = [self.cluster.head_node, *(self.cluster.add_node(num_cpus=cores) for cores in others)]
        ray.init(self.cluster.address, log_to_driver=False, configure_logging=False)

    def serve(self, config: dict[str, Any], engines_class: type | None = None) -> ClusterConfig:
        """Put the application on the cluster, or a new version in its place, and wait until it is there."""
        from ray import serve

        from florence2.cluster.application import APPLICATION, application

        settings = {"host": "127.0.0.1", "log_level": "warning", **config.get("settings", {})}
        whole = cluster_config({**config, "settings": settings}, "the benchmark")
        # One proxy: those of several nodes on one machine would want one port.
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": self.port})
        self._num_served += 1  # what is kept of an earlier version would have an earlier class
        serve.run(application(whole, engines_class, salt=str(self._num_served)), name=APPLICATION)
        return whole

    def wait_until_ready(self, path: str = "/readiness") -> float:
        """Wait until a page answers 200; the seconds that took."""
        began = time.monotonic()
        while time.monotonic() - began < READY_S:
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as response:
                if response.status == 200:
                    return time.monotonic() - began
            time.sleep(0.05)
        raise SystemExit(f"the cluster is not ready after {READY_S:g} s")

    def replicas(self, deployment: str = "Engines") -> dict[str, int]:
        """The process of each running replica of a deployment, by the replica's name."""
        return replicas(deployment)

    def wait_for_replicas(self, count: int, but: str, latest_s: float) -> float | None:
        """Wait until so many engines run, one of this name not among them; the seconds that took, None: longer."""
        began = time.monotonic()
        while time.monotonic() - began < latest_s:
            with suppress(Exception):  # the controller is not there
                if sum(name != but for name in self.replicas()) >= count:
                    return round(time.monotonic() - began, 2)
            time.sleep(0.1)
        return None

    def haproxies(self) -> dict[str, int]:
        """The processes of HAProxy on these nodes."""
        pids = [pid for node in self.nodes for pid in descendants(node.all_processes["raylet"][0].process.pid)]
        return {str(pid): pid for pid in pids if name_of(pid) == "haproxy"}

    def stop(self) -> None:
        """End everything."""
        import ray

        ray.shutdown()
        self.cluster.shutdown()
        self._folder.cleanup()
        self._ports.close()


@contextmanager
def clustered(nodes: list[int]) -> Iterator[Clustered]:
    """A cluster, ended at the end."""
    one = Clustered(nodes)
    try:
        yield one
    finally:
        one.stop()
