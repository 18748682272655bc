"""A replica and a whole node killed under load, and a cluster that has no replica at first: every request ends as it should."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from florence2.cluster.config import cluster_config

pytest.importorskip("ray", reason="Ray has no wheel for this Python and system; the cluster is not tested")

from fixtures.bare_http import exchange
from fixtures.checked_load import Load, picture64
from fixtures.fake_replica import demo_facts, fake_engines, noted
from fixtures.ray_processes import descendants, raylet_of, replicas

pytestmark = pytest.mark.slow
FAKES = "fakes"
ON_A_NODE = {"num_cpus": 1, "num_gpus": 1}  # an engine's: the first node has no GPU, so that each is on a node of its own
LATEST_S = 30.0


def deploy(engines: dict[str, Any], folder: Path) -> None:
    """The application with engines that answer after a tenth of a second, below ``/fakes``."""
    from ray import serve

    from florence2.cluster.application import application

    settings = {"host": "127.0.0.1", "log_level": "warning", "root_path": f"/{FAKES}"}
    config = cluster_config({"engines": engines, "settings": settings}, "the test")
    serve.run(application(config, fake_engines(demo_facts(), 100, folder)), name=FAKES, route_prefix=f"/{FAKES}")


def until(is_so: Callable[[], bool]) -> float:
    """Wait for something; the seconds that took."""
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() - began < LATEST_S
        time.sleep(0.05)
    return time.monotonic() - began


@pytest.fixture(scope="module")
def nodes(ray_cluster: Any) -> Iterator[list[Any]]:
    added = [ray_cluster.add_node(**ON_A_NODE) for _ in range(2)]
    yield added
    for node in added:
        with suppress(Exception):  # it was killed
            ray_cluster.remove_node(node, allow_graceful=False)
    import ray

    until(lambda: not ray.cluster_resources().get("GPU"))  # what is tested next must not plan with them


@pytest.fixture(scope="module")
def folder(nodes: list[Any], serve_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    from ray import serve

    path = tmp_path_factory.mktemp("noted")
    deploy({"min_replicas": 2, "max_replicas": 2, **ON_A_NODE}, path)
    yield path
    serve.delete(FAKES)


def kill_replica(_: list[Any]) -> None:
    """End the process of one replica."""
    os.kill(min(replicas("Engines", FAKES).values()), signal.SIGKILL)


def kill_node(nodes: list[Any]) -> None:
    """End all processes of a node that has a replica."""
    busy = set(replicas("Engines", FAKES).values())
    node = next(node for node in nodes if busy & set(descendants(raylet_of(node))))
    for pid in descendants(raylet_of(node)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    nodes.remove(node)


@pytest.mark.parametrize("is_streamed", [False, True])
def test_what_a_client_that_leaves_has_asked_ends_at_the_replica(is_streamed: bool, folder: Path, serve_port: int) -> None:
    """Serve does not watch for such clients, the application does. An answer may be there before the client has left: then it asks anew."""

    async def leave(prompt: str) -> None:
        fields = {"model_id": "florence-2-demo", "prompt": prompt, "stream": is_streamed, "image": {"type": "base64", "value": picture64()}}
        asking = asyncio.create_task(exchange(serve_port, json.dumps(fields).encode(), f"/{FAKES}/infer/lmm"))
        async with asyncio.timeout(LATEST_S):
            while prompt not in noted(folder)["begun"]:
                await asyncio.sleep(0.002)
        asking.cancel()

    for number in range(20):
        asyncio.run(leave(prompt := f"left {number} {is_streamed}"))
        time.sleep(0.5)
        if prompt not in noted(folder)["ended"]:
            return
    pytest.fail("every answer came to its end")


@pytest.mark.parametrize("kill", [kill_replica, kill_node])
def test_every_request_ends_with_its_own_answer(kill: Callable[[list[Any]], None], nodes: list[Any], folder: Path, serve_port: int) -> None:
    until(lambda: len(replicas("Engines", FAKES)) == 2)
    before, load = replicas("Engines", FAKES), Load(serve_port, 6, root=f"/{FAKES}")
    until(lambda: len(load.ended) > 10)
    kill(nodes)
    if kill is kill_replica:
        until(lambda: len(set(replicas("Engines", FAKES)) - set(before)) == 1)
    killed_at = time.monotonic()
    until(lambda: load.answered_after(killed_at) is not None)
    load.finish()
    told = load.told()
    assert told["ended"] == told["sent"] > 20
    assert set(told["by_end"]) <= {"200", "503"}, told
    assert told["by_end"]["200"] > told["sent"] / 2
    assert told["wrong_answers"] == told["errors_without_retry_after"] == 0
    assert max(noted(folder)["begun"].values()) <= 2 * 2  # both tests ask with the same numbers; each request is sent again at most once


def test_a_cluster_without_replicas_has_one_when_it_is_asked(folder: Path, serve_port: int) -> None:
    deploy({"min_replicas": 0, "max_replicas": 1, **ON_A_NODE, "downscale_delay_s": 0.5, "upscale_delay_s": 0}, folder)
    until(lambda: not replicas("Engines", FAKES))
    fields = {"model_id": "florence-2-demo", "prompt": "who is there", "image": {"type": "base64", "value": picture64()}}

    def ask(headers: str = "") -> bytes:
        return asyncio.run(asyncio.wait_for(exchange(serve_port, json.dumps(fields).encode(), f"/{FAKES}/infer/lmm", headers), LATEST_S))

    assert b"who is there" in ask()
    assert len(replicas("Engines", FAKES)) == 1
    until(lambda: not replicas("Engines", FAKES))
    began = time.monotonic()
    late = ask("x-request-timeout: 0.2\r\n")  # no replica starts so soon
    assert time.monotonic() - began < 2
    assert late.startswith(b"HTTP/1.1 504 "), late[:500]
