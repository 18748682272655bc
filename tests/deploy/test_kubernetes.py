"""The manifests for Kubernetes: they find each other, name settings, routes and metrics that exist, and give the server time to end."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from florence2.server.http import health
from florence2.server.http.metric_table import TABLE
from florence2.server.settings import Settings
from tests.deploy.files import DEPLOY, DOCKERFILES, KUBERAY, KUBERNETES, documents, environment_of, find, parts, settings_of, values_of

DEPLOYMENT = find("Deployment", KUBERNETES)
POD = DEPLOYMENT["spec"]["template"]["spec"]
(SERVER,) = POD["containers"]
LABELS = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
ROUTES = {route.path for route in health.router.routes}  # pyright: ignore[reportAttributeAccessIssue]
PORT = Settings.model_fields["port"].default
METRIC = "florence2_requests_waiting"


def variables(path: Path) -> dict[str, Any]:
    """Every variable that a file gives to containers or keeps in secrets."""
    found = {one["name"]: one.get("value", "") for item in documents(path) for env in parts(item, "env") for one in env}
    return found | {name: value for item in documents(path) for data in parts(item, "stringData") for name, value in data.items()}


@pytest.mark.parametrize("path", [*KUBERNETES, *KUBERAY], ids=lambda path: path.name)
def test_settings_in_manifests_exist(path: Path) -> None:
    for name in variables(path):
        if name.startswith("FLORENCE2_"):
            assert name.removeprefix("FLORENCE2_").lower() in Settings.model_fields, name


def test_the_kustomization_has_what_needs_no_secret_or_operator() -> None:
    (kustomization,) = documents(DEPLOY / "kubernetes" / "kustomization.yaml")
    written = {path.name for path in KUBERNETES}
    left_out = {"kustomization.yaml", "secret.example.yaml", "servicemonitor.yaml", "prometheus-adapter.yaml"}
    assert set(kustomization["resources"]) == written - left_out


def test_everything_finds_the_servers() -> None:
    assert DEPLOYMENT["spec"]["selector"]["matchLabels"] == LABELS
    service = find("Service", KUBERNETES)
    assert service["spec"]["selector"] == LABELS
    for kind in ("PodDisruptionBudget", "ServiceMonitor"):
        assert find(kind, KUBERNETES)["spec"]["selector"]["matchLabels"] == LABELS
    assert find("NetworkPolicy", KUBERNETES)["spec"]["podSelector"]["matchLabels"] == LABELS
    assert find("HorizontalPodAutoscaler", KUBERNETES)["spec"]["scaleTargetRef"] == {
        "apiVersion": DEPLOYMENT["apiVersion"],
        "kind": "Deployment",
        "name": DEPLOYMENT["metadata"]["name"],
    }
    assert "replicas" not in DEPLOYMENT["spec"]  # or every apply would undo what the autoscaler has set


def test_ports_are_the_servers() -> None:
    (port,) = SERVER["ports"]
    assert port == {"name": "http", "containerPort": PORT}
    (offered,) = find("Service", KUBERNETES)["spec"]["ports"]
    assert (offered["name"], offered["port"], offered["targetPort"]) == ("http", PORT, "http")
    (endpoint,) = find("ServiceMonitor", KUBERNETES)["spec"]["endpoints"]
    assert endpoint["port"] == "http"
    assert endpoint["path"] in ROUTES
    (allowed,) = find("NetworkPolicy", KUBERNETES)["spec"]["ingress"]
    assert allowed["ports"] == [{"port": "http", "protocol": "TCP"}]


def test_probes_ask_routes_that_exist_and_only_readiness_ends_requests() -> None:
    paths = {}
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        probe = SERVER[name]
        assert probe["httpGet"]["port"] == "http"
        assert probe["httpGet"]["path"] in ROUTES
        assert probe["timeoutSeconds"] >= 5  # docs/operations.md: some seconds
        paths[name] = probe["httpGet"]["path"]
    assert paths == {"startupProbe": "/readiness", "livenessProbe": "/healthz", "readinessProbe": "/readiness"}


def test_the_server_ends_by_itself_once_nobody_asks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {one["name"]: one["value"] for one in SERVER["env"]}
    settings = settings_of({**environment_of(DOCKERFILES[0]), **given}, monkeypatch)
    program, seconds = SERVER["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "sleep"
    assert int(seconds) >= 5  # until proxies have heard of it
    assert int(seconds) + settings.drain_delay_s + settings.drain_timeout_s < POD["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("path", [*KUBERNETES, *KUBERAY], ids=lambda path: path.name)
def test_containers_are_locked_in_as_the_image_expects(path: Path) -> None:
    (user,), (folders,) = values_of(DOCKERFILES[0], "USER"), values_of(DOCKERFILES[0], "VOLUME")
    uid, gid = map(int, user.split(":"))
    for item in documents(path):
        for pod in (template["spec"] for template in parts(item, "template")):
            assert pod["securityContext"]["runAsNonRoot"]
            assert [pod["securityContext"][name] for name in ("runAsUser", "runAsGroup", "fsGroup")] == [uid, gid, gid]
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            volumes = {volume["name"] for volume in pod["volumes"]}
            for container in pod["containers"]:
                assert container["securityContext"] == {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                }
                assert {mount["name"] for mount in container["volumeMounts"]} == volumes
                assert {mount["mountPath"] for mount in container["volumeMounts"]} == {*json.loads(folders), "/tmp"}
                assert container["resources"]["limits"]["memory"]
                assert re.fullmatch(r"florence2:[\w.-]+", container["image"])


def test_the_autoscaler_asks_for_a_metric_that_the_adapter_offers() -> None:
    assert {row.name: (row.kind, row.labels) for row in TABLE}[METRIC] == ("gauge", ("model",))
    (metric,) = find("HorizontalPodAutoscaler", KUBERNETES)["spec"]["metrics"]
    assert metric["type"] == "Pods"
    assert metric["pods"]["metric"]["name"] == METRIC
    (adapter,) = documents(DEPLOY / "kubernetes" / "prometheus-adapter.yaml")
    (rule,) = adapter["rules"]["custom"]
    assert rule["seriesQuery"].partition("{")[0] == METRIC
    assert set(rule["resources"]["overrides"]) == {"namespace", "pod"}
    # A server's models are summed: their label is not among those that results are grouped by.
    assert rule["metricsQuery"] == "sum by (<<.GroupBy>>) (<<.Series>>{<<.LabelMatchers>>})"


def test_secrets_that_are_asked_for_are_in_the_example() -> None:
    example = {item["metadata"]["name"]: set(item["stringData"]) for item in documents(DEPLOY / "kubernetes" / "secret.example.yaml")}
    assert {reference["name"] for reference in parts(DEPLOYMENT, "secretRef")} <= set(example)
    credentials = find("ServiceMonitor", KUBERNETES)["spec"]["endpoints"][0]["authorization"]["credentials"]
    assert credentials["key"] in example[credentials["name"]]
    (relabelled,) = find("ServiceMonitor", KUBERNETES)["spec"]["endpoints"][0]["relabelings"]
    assert relabelled == {"targetLabel": "job", "replacement": "florence2"}
