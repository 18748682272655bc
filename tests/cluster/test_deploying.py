"""The application put onto a Ray that runs: again, with what has changed, and at another address."""

from __future__ import annotations

import re
import threading
from collections import Counter
from pathlib import Path

import httpx2 as httpx
import pytest

from tests.cluster.conftest import main_config

pytestmark = pytest.mark.slow
SCENE = Path(__file__).parents[2] / "examples" / "scene.png"


def replicas(url: str) -> dict[str, set[str]]:
    """The names of the replicas: of the ingress, and of those with engines."""
    text = httpx.get(f"{url}/metrics", timeout=20).text
    kinds = {"ingress": "florence2_ready", "engines": "florence2_models_loaded"}
    return {kind: set(re.findall(rf'^{name}{{replica="(\w+)"}}', text, re.MULTILINE)) for kind, name in kinds.items()}


def test_an_update_restarts_what_has_changed_and_loses_no_request(server_url: str, serve_port: int) -> None:
    from florence2.cluster.application import APPLICATION
    from florence2.cluster.deploying import deploy
    from florence2.cluster.serving import report_of

    before, statuses, is_over = replicas(server_url), Counter[int](), threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            form = {"model_id": "florence-2-demo", "prompt": "<OD>"}
            statuses[httpx.post(f"{server_url}/infer/lmm", data=form, files={"image": SCENE.read_bytes()}, timeout=60).status_code] += 1

    asking = [threading.Thread(target=ask) for _ in range(2)]
    for thread in asking:
        thread.start()
    deploy(main_config(serve_port, max_images=7), longest_s=60)
    is_over.set()
    for thread in asking:
        thread.join()
    after = replicas(server_url)
    assert set(statuses) == {200}
    assert len(before["engines"]) == 1, "the replica with engines alone counts models"
    assert after["engines"] == before["engines"]
    assert after["ingress"].isdisjoint(before["ingress"])
    told = report_of(APPLICATION)
    assert (told.status, told.replicas["Ingress"].wanted, told.replicas["Engines"].states) == ("RUNNING", 1, {"RUNNING": 1})


def test_a_request_that_keeps_its_id_gets_it_once(server_url: str) -> None:
    response = httpx.get(f"{server_url}/healthz", headers={"x-request-id": "mine"})
    assert response.headers.get_list("x-request-id") == ["mine"]


def test_another_address_is_refused_as_ray_serve_runs(server_url: str, serve_port: int) -> None:
    from florence2.cluster.deploying import deploy
    from florence2.cluster.started import ClusterFailed

    with pytest.raises(ClusterFailed, match=f"with port {serve_port} instead of 1234"):
        deploy(main_config(1234), longest_s=5)


def test_too_large_bodies_are_refused_by_the_server_itself(server_url: str) -> None:
    response = httpx.post(f"{server_url}/infer/lmm", content=b"x" * (21 * 2**20), headers={"content-type": "application/json"}, timeout=60)
    assert (response.status_code, response.json()["code"]) == (413, "body_too_large")
