"""The script that ``make lint`` runs over ``deploy/``: it finds the pods in objects of operators, and says what tools complain of."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from types import ModuleType

import pytest

from tests.deploy.files import DEPLOY, ROOT


@pytest.fixture(scope="module")
def lint() -> ModuleType:
    spec = importlib.util.spec_from_file_location("deploy_lint", ROOT / ".ci" / "deploy.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pods_of_operators_objects_are_found(lint: ModuleType) -> None:
    kinds = {name: Counter(item["kind"] for item in lint.objects(DEPLOY / "kuberay" / f"{name}.yaml")) for name in ("rayservice", "rayjob")}
    assert kinds == {"rayservice": {"PodTemplate": 3, "NetworkPolicy": 1}, "rayjob": {"PodTemplate": 2}}
    assert [item["kind"] for item in lint.objects(DEPLOY / "kubernetes" / "deployment.yaml")] == ["Deployment"]
    assert list(lint.objects(DEPLOY / "kuberay" / "podmonitor.yaml")) == []


def test_files_that_are_passed_over_are_no_objects(lint: ModuleType) -> None:
    for name in lint.NO_OBJECTS:
        text = (DEPLOY / "kubernetes" / name).read_text(encoding="utf-8")
        assert "kustomize.config.k8s.io" in text or "apiVersion" not in text


def test_what_a_tool_says_is_told_when_it_fails(lint: ModuleType) -> None:
    script = "import sys; print('bad\\n\\nworse'); sys.exit(int(sys.argv[1]))"
    assert lint._complaints([sys.executable, "-c", script, "1"], "a.yaml") == ["a.yaml: bad", "a.yaml: worse"]
    assert lint._complaints([sys.executable, "-c", script, "0"], "a.yaml") == []


def test_one_mistake_is_an_exit_code_of_one(lint: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("_objects", "_compose_files", "_prometheus_files", "_kustomization"):
        monkeypatch.setattr(lint, name, lambda *_: [])
    monkeypatch.setattr(lint, "_dockerfiles", lambda: ["Dockerfile: wrong"])
    assert lint.main() == 1
    assert capsys.readouterr().out == "deploy: Dockerfile: wrong\ndeploy: 1 mistakes\n"
    monkeypatch.setattr(lint, "_dockerfiles", list)
    assert lint.main() == 0
