"""A Ray cluster of several nodes on this machine for benchmarks, with the application of ``florence2 cluster serve`` on it.

Knows its processes: those of replicas by the deployment that they belong to, those of nodes, so that they can be killed from outside.
"""

from __future__ import annotations

import os
import socket
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from florence2.cluster.config import ClusterConfig, cluster_config
from florence2.cluster.started import prepare_serve

READY_S = 120.0
REPOSITORY = Path(__file__).resolve().parents[1]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at present."""
    with_ports = [socket.socket() for _ in range(count)]
    for one in with_ports:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in with_ports]
    for one in with_ports:
        one.close()
    return ports


class Clustered:
    """The application on a cluster of its own.

    Args:
        nodes: the cores of each node, as Ray is to believe; the first has the ingress's share too.

    Attributes:
        port: where it listens on 127.0.0.1.
        cluster: Ray's own handle of the nodes.
    """

    def __init__(self, nodes: list[int]) -> None:
        self.port, metrics, stats = free_ports(3)
        low = 30_000 + os.getpid() % 100 * 100
        os.environ |= {
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
            "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(low),
            "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(low + 99),
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }
        prepare_serve(os.environ)
        import ray
        from ray.cluster_utils import Cluster

        self._folder = tempfile.TemporaryDirectory(prefix="f2c", ignore_cleanup_errors=True)
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
        serve.run(application(whole, engines_class), name=APPLICATION)
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
        found: dict[str, int] = {}
        for actor in _actors():
            if f"#{deployment}#" in actor["name"]:
                with suppress(Exception):  # it has ended meanwhile
                    found[actor["name"]] = _pid_of(actor)
        return found

    def wait_for_replicas(self, count: int, but: str, latest_s: float) -> float | None:
        """Wait until so many engines run, one of this name not among them; the seconds that took, None: longer."""
        began = time.monotonic()
        while time.monotonic() - began < latest_s:
            with suppress(Exception):  # the controller is not there
                if sum(name != but for name in self.replicas()) >= count:
                    return round(time.monotonic() - began, 2)
            time.sleep(0.1)
        return None

    def actor(self, part_of_name: str) -> int:
        """The process of the one actor whose name holds this."""
        (named,) = [actor for actor in _actors() if part_of_name in actor["name"]]
        return _pid_of(named)

    def haproxies(self) -> dict[str, int]:
        """The processes of HAProxy on these nodes."""
        pids = [pid for node in self.nodes for pid in descendants(node.all_processes["raylet"][0].process.pid)]
        return {str(pid): pid for pid in pids if _name(pid) == "haproxy"}

    def stop(self) -> None:
        """End everything."""
        import ray

        ray.shutdown()
        self.cluster.shutdown()
        self._folder.cleanup()


def descendants(pid: int) -> list[int]:
    """A process and all that it has started, and they."""
    found = [pid]
    for one in found:
        with suppress(OSError):
            for thread in Path(f"/proc/{one}/task").iterdir():
                found += map(int, (thread / "children").read_text(encoding="ascii").split())
    return found


def processor_s(pid: int) -> float:
    """The processor time that a process has used; 0 if it has ended."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _name(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    return ""


def _actors() -> list[dict[str, str]]:
    import ray

    return cast("list[dict[str, str]]", ray.util.list_named_actors(all_namespaces=True))


def _pid_of(actor: dict[str, str]) -> int:
    import ray

    handle: Any = ray.get_actor(actor["name"], namespace=actor["namespace"])
    return ray.get(handle.__ray_call__.remote(_pid), timeout=5)


def _pid(_: Any) -> int:
    return os.getpid()


@contextmanager
def clustered(nodes: list[int]) -> Iterator[Clustered]:
    """A cluster, ended at the end."""
    one = Clustered(nodes)
    try:
        yield one
    finally:
        one.stop()
