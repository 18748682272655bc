"""The ports that a Ray started here takes: two of them on one machine share none, or they would answer each other's requests."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="Ray has no wheel for this Python and system; the cluster is not tested")

from ray.serve._private import constants

from florence2.cluster.started import INGRESS_PORTS, PORTS, choose_for_here

NOT_OPENED = {"RAY_SERVE_WORKER_PROXY_HTTP_PORT"}  # without a value of its own: nodes of one Ray on one machine are for tests


def ports_of(environment: dict[str, str]) -> set[int]:
    first, last = (int(environment[name]) for name in INGRESS_PORTS)
    return {int(environment[name]) for name in PORTS} | set(range(first, last + 1))


def test_every_port_that_serve_opens_for_http_is_chosen() -> None:
    source = Path(constants.__file__).read_text()
    named = set(re.findall(r'"(RAY_SERVE_\w+_PORT)"', source))
    assert "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT" in named
    of_grpc = {name for name in named if "GRPC" in name}  # which is not served
    assert named - of_grpc - NOT_OPENED == {*PORTS, *INGRESS_PORTS}


def test_two_on_one_machine_share_no_port_even_before_they_listen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("florence2.cluster.started.secrets.SystemRandom.shuffle", lambda *_: None)  # both try the same ones first
    first: dict[str, str] = {}
    second: dict[str, str] = {}
    with closing(choose_for_here(first, tmp_path)), closing(choose_for_here(second, tmp_path)):
        assert not ports_of(first) & ports_of(second)
    third: dict[str, str] = {}
    with closing(choose_for_here(third, tmp_path)):
        assert ports_of(third) == ports_of(first)


def test_ports_that_the_user_has_chosen_are_kept(tmp_path: Path) -> None:
    environment = {PORTS[0]: "8500", INGRESS_PORTS[0]: "30000"}
    choose_for_here(environment, tmp_path).close()
    assert (environment[PORTS[0]], environment[INGRESS_PORTS[0]]) == ("8500", "30000")
    assert INGRESS_PORTS[1] not in environment
