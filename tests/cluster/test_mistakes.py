"""What is said where a configuration, or what others do meanwhile, keeps the application from starting."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from florence2.cluster import commands, deploying, nodes, started
from florence2.cluster.config import cluster_config
from florence2.cluster.started import ClusterFailed
from florence2.errors import InvalidOption


@pytest.mark.parametrize(("name", "value"), [("engines", 3), ("ingress", None), ("settings", ["model"])])
def test_a_part_that_is_no_mapping_is_shown_one(name: str, value: Any) -> None:
    with pytest.raises(InvalidOption, match=rf"the test: {name} must be a mapping such as \{{\w+: \d+\}}"):
        cluster_config({name: value}, "the test")


def test_an_application_that_others_end_while_it_starts_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deploying.serve, "status", lambda: SimpleNamespace(applications={}))
    with pytest.raises(ClusterFailed, match="ended while it was starting"):
        deploying._wait(cluster_config({}, "the test"), 1.0, lambda _: None, lambda: False)


def test_the_reason_is_the_last_error_and_not_the_traceback() -> None:
    said = 'ray::HAProxyManager.ready() (pid=1)\n  File "a.py", line 1, in ready\nRuntimeError: HAProxy crashed: can\'t bind'
    assert deploying._said_in(said) == "HAProxy crashed: can't bind"
    assert deploying._said_in("no reason") is None


def test_nodes_whose_ray_has_another_environment_are_named(on_ray: None, capsys: pytest.CaptureFixture[str]) -> None:
    there = started.passing_on(os.environ)
    assert started.FAST in there
    assert nodes.check_nodes(there) == []
    differing = nodes.check_nodes({started.HAPROXY: "another"})
    assert len(differing) == len([node for node in ray.nodes() if node["Alive"]])
    commands._note_nodes(differing, {started.HAPROXY: "another"})
    assert f"without {started.HAPROXY}=another on {differing[0]}" in capsys.readouterr().err
    commands._note_nodes([], {})
    assert capsys.readouterr().err == ""
