"""What ``florence2 cluster`` does: a Ray here that serves until a signal ends it, or the application on one that runs.

In: flags. Out: lines for people on standard error. Knows nothing of how flags are written.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

from florence2.cluster.config import ClusterConfig, cluster_config
from florence2.cluster.config_file import read_config_file
from florence2.cluster.haproxy import remove_left_behind
from florence2.cluster.started import ClusterFailed, passing_on, ray_at, ray_here
from florence2.console import notify
from florence2.cores import usable_cores
from florence2.errors import InvalidOption
from florence2.server.accounts.location import default_database, has_default_database
from florence2.server.profiles import EVERY_ADDRESS
from florence2.server.settings import Settings, where
from florence2.server.settings_report import notices

if TYPE_CHECKING:
    from florence2.cluster.serving import Report

SQLITE = "sqlite:"
LOOK_EACH_S = 0.1


@dataclass(frozen=True)
class Flags:
    """The flags of ``florence2 cluster serve``.

    Attributes:
        config: the file; None: there is none.
        settings: settings of the server, by their names.
        engines: the fewest and the most replicas with engines; None: as in the file.
        cpus: processor cores for each of them.
        gpus: GPUs for each.
    """

    config: Path | None
    settings: Mapping[str, Any]
    engines: tuple[int, int] | None = None
    cpus: float | None = None
    gpus: float | None = None


def read_flags(flags: Flags, *, is_here: bool) -> ClusterConfig:
    """The configuration of flags, file and environment.

    Args:
        flags: the flags.
        is_here: Ray is started on this machine, which listens as one machine does; otherwise at all addresses.

    Raises:
        InvalidOption: something of it is wrong.
    """
    file = read_config_file(flags.config)
    config = cluster_config(_with_flags(file.values, flags), file.name, file.place)
    given = dict(flags.settings)
    is_found = "database" not in config.settings and where("database", given) is None and has_default_database()
    if is_found:
        given["database"] = default_database()
        notify(f"florence2: every request needs a key, as florence2 keys has made {given['database']}; --database none serves without")
    host = None if is_here else EVERY_ADDRESS
    settings = config.read_settings(given, lambda name: f"{file.name}{file.place(('settings', name))}", host)
    _check_settings(settings)
    for line in notices(os.environ, settings):
        notify(f"florence2: {line}")
    return config.with_settings(settings)


def _with_flags(values: Mapping[str, Any], flags: Flags) -> dict[str, Any]:
    """What the file says, with the flags laid over it."""
    fewest_and_most = {} if flags.engines is None else dict(zip(("min_replicas", "max_replicas"), flags.engines, strict=True))
    given = {"num_cpus": flags.cpus, "num_gpus": flags.gpus, **fewest_and_most}
    own = {name: value for name, value in given.items() if value is not None}
    engines = values.get("engines") or {}
    return {**values, "engines": {**engines, **own}} if own and isinstance(engines, Mapping) else dict(values)


def _check_settings(settings: Settings) -> None:
    """Refuse what Ray Serve can't do.

    Raises:
        InvalidOption: something is set that it can't do.
    """
    if settings.ssl_certfile is not None:
        raise InvalidOption("ssl_certfile: Ray Serve listens without TLS; let a load balancer or an ingress of Kubernetes do that")
    if settings.root_path:
        raise InvalidOption("root_path: Ray Serve offers the server at the root; let the proxy in front of it remove the path")
    if settings.port == 0:
        raise InvalidOption("port 0 is chosen by each machine for itself; name one that is free on all")


class Ending(Protocol):
    """What says that the end is wanted."""

    def is_wanted(self) -> bool:
        """Whether it is."""
        ...


def serve_here(flags: Flags, longest_s: float, watched: AbstractContextManager[Ending], told: Callable[[str], None]) -> None:
    """Start a Ray here, serve, and end both when that is wanted.

    Args:
        flags: the flags.
        longest_s: how long to wait until it is ready.
        watched: says when it is to end; entered once Ray runs, which answers signals itself when it starts.
        told: told the address once it is ready.
    """
    config = read_flags(flags, is_here=True)
    if left_behind := remove_left_behind():
        _note(f"ended the HAProxy of a run that was killed (process {', '.join(map(str, left_behind))})")
    _check_free(config.server_settings)
    _note("starting Ray")
    with ray_here(usable_cores(), os.environ) as there:
        _check_room(config, there)
        from florence2.cluster.application import APPLICATION
        from florence2.cluster.serving import stop

        with watched as ending:
            try:
                _serve_until(ending, config, longest_s, told)
            finally:
                stop(APPLICATION, is_all=False)


def _serve_until(ending: Ending, config: ClusterConfig, longest_s: float, told: Callable[[str], None]) -> None:
    """Deploy the application, say where it is, and return when the end is wanted."""
    from florence2.cluster.deploying import deploy, wait_for_http
    from florence2.cluster.serving import url_of

    deploy(config, longest_s=longest_s, note=_note, is_ended=ending.is_wanted)
    url = url_of(config.server_settings.host, config.server_settings.port)
    if not ending.is_wanted():
        wait_for_http(url)
        told(url)
    while not ending.is_wanted():
        time.sleep(LOOK_EACH_S)


def serve_at(address: str, flags: Flags, longest_s: float, told: Callable[[str], None], *, is_restart: bool) -> None:
    """Put the application onto a Ray that runs, and wait until it is ready."""
    config = read_flags(flags, is_here=False)
    with ray_at(address, os.environ):
        import ray

        from florence2.cluster.deploying import deploy
        from florence2.cluster.nodes import check_nodes
        from florence2.cluster.serving import url_of

        _check_database(config.server_settings, [node for node in ray.nodes() if node["Alive"]])
        _note_nodes(check_nodes(passing_on(os.environ)), os.environ)
        deploy(config, longest_s=longest_s, salt=uuid4().hex if is_restart else "", note=_note)
        if ray.cluster_resources().get("GPU", 0.0) and not config.engines.num_gpus:
            notify("florence2: the cluster has GPUs, and no replica asks for one: --gpus 1 gives each replica with engines one")
        told(url_of(config.server_settings.host, config.server_settings.port))


def _note_nodes(differing: list[str], environment: Mapping[str, str]) -> None:
    """Say where Ray was started without what this command expects: Serve runs with the environment of the nodes."""
    if differing:
        wanted = " ".join(f"{name}={shlex.quote(value)}" for name, value in passing_on(environment).items())
        _note(
            f"Ray was started without {wanted} on {', '.join(differing)}; requests are then passed on by Serve's own proxy, which is "
            "slower, and those of an ingress that dies are lost: start Ray with these variables on every node"
        )


def status_at(address: str) -> Report:
    """What the application of a cluster does."""
    with ray_at(address, os.environ):
        from florence2.cluster.application import APPLICATION
        from florence2.cluster.serving import report_of

        return report_of(APPLICATION)


def stop_at(address: str, *, is_all: bool) -> bool:
    """End the application of a cluster; whether there was one."""
    with ray_at(address, os.environ):
        from florence2.cluster.application import APPLICATION
        from florence2.cluster.serving import stop

        return stop(APPLICATION, is_all=is_all)


def _note(line: str) -> None:
    notify(f"florence2: {line}")


def _check_room(config: ClusterConfig, there: Mapping[str, float]) -> None:
    """Refuse what this machine has no room for.

    Raises:
        ClusterFailed: it has too few cores or GPUs.
    """
    from florence2.cluster.nodes import lacking

    if missing := lacking(config, there):
        raise ClusterFailed(f"there is not enough room on this machine: {missing}")


def _check_free(settings: Settings) -> None:
    """Refuse a port that is in use: HAProxy would say so in its own log.

    Raises:
        ClusterFailed: it is in use, or may not be listened on.
    """
    import socket

    host = settings.host
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind((host, settings.port))
    except OSError as error:
        raise ClusterFailed(f"can't listen on {host}:{settings.port}: {error.strerror}; take another --port") from None


def _check_database(settings: Settings, nodes: list[Any]) -> None:
    """Refuse a file for a database that processes of several machines are to share.

    Raises:
        InvalidOption: it is one.
    """
    url = "" if settings.database is None else settings.database.get_secret_value()
    if len(nodes) > 1 and url.startswith(SQLITE):
        raise InvalidOption(
            f"the cluster has {len(nodes)} nodes, which can't share a file of SQLite: take --database postgresql://…, or --database none "
            "with --api-keys-file",
            field="database",
        )
