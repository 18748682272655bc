"""The manifests for KubeRay: fields that its objects have, one environment in all pods, and an application that can be built."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from florence2.cli.app import app
from florence2.cluster.config import cluster_config
from florence2.cluster.started import LOOKED_AFTER, RETRIED
from florence2.server.http.metric_table import TABLE
from florence2.server.settings import Settings
from tests.deploy.files import KUBERAY, ROOT, find, parts

SERVICE, JOB = find("RayService", KUBERAY), find("RayJob", KUBERAY)
SERVE = yaml.safe_load(SERVICE["spec"]["serveConfigV2"])
(APPLICATION,) = SERVE["applications"]
CLUSTERS = [SERVICE["spec"]["rayClusterConfig"], JOB["spec"]["rayClusterSpec"]]
# Source: the Go types of ray.io/v1 in KubeRay 1.3 to 1.5, whose schemas no package has. Only fields that are used here.
FIELDS = {
    "RayService": {"serveConfigV2", "rayClusterConfig", "upgradeStrategy", "rayClusterDeletionDelaySeconds", "excludeHeadPodFromServeSvc"},
    "RayJob": {"entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "rayClusterSpec"},
    "cluster": {
        "rayVersion",
        "enableInTreeAutoscaling",
        "autoscalerOptions",
        "gcsFaultToleranceOptions",
        "headGroupSpec",
        "workerGroupSpecs",
    },
    "head": {"rayStartParams", "template"},
    "workers": {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"},
    "autoscaler": {"version", "idleTimeoutSeconds", "resources", "securityContext"},
    "gcs": {"redisAddress", "redisPassword"},
}


def cores(quantity: str) -> int:
    return int(quantity)


def groups(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def test_fields_are_those_of_the_operator() -> None:
    for item in (SERVICE, JOB):
        assert item["apiVersion"] == "ray.io/v1"
        assert set(item["spec"]) <= FIELDS[item["kind"]]
    for cluster in CLUSTERS:
        assert set(cluster) <= FIELDS["cluster"]
        assert set(cluster["headGroupSpec"]) <= FIELDS["head"]
        assert set(cluster.get("autoscalerOptions", {})) <= FIELDS["autoscaler"]
        assert set(cluster.get("gcsFaultToleranceOptions", {})) <= FIELDS["gcs"]
        for group in cluster["workerGroupSpecs"]:
            assert set(group) <= FIELDS["workers"]
            assert group["minReplicas"] <= group.get("replicas", group["minReplicas"]) <= group["maxReplicas"]
        assert all(isinstance(value, str) for group in groups(cluster) for value in group["rayStartParams"].values())


def test_ray_is_the_version_of_the_image() -> None:
    pinned = re.search(r"^ray==(\S+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert pinned is not None
    assert {str(cluster["rayVersion"]) for cluster in CLUSTERS} == {pinned[1]}


@pytest.mark.parametrize("cluster", CLUSTERS, ids=["service", "job"])
def test_every_pod_has_the_same_environment_and_probes_that_ray_answers(cluster: dict[str, Any]) -> None:
    containers = [container for group in groups(cluster) for container in group["template"]["spec"]["containers"]]
    assert len(containers) == len(groups(cluster)) >= 2
    for container in containers:
        assert container["env"] == containers[0]["env"]
        assert container["envFrom"] == containers[0]["envFrom"]
        # The operator would put a probe in by wget, which the image does not have.
        for probe in ("readinessProbe", "livenessProbe"):
            assert container[probe]["httpGet"]["path"] in ("/api/healthz", "/-/healthz")
    names = {one["name"] for one in containers[0]["env"]}
    assert all(name in _rays_own_variables() for name in names)


def _rays_own_variables() -> str:
    """Where Ray reads its variables, without importing it."""
    spec = importlib.util.find_spec("ray")
    assert spec is not None
    assert spec.origin is not None
    files = ("serve/_private/constants.py", "_common/usage/usage_constants.py")
    return "".join(Path(spec.origin).parent.joinpath(name).read_text(encoding="utf-8") for name in files)


def test_serves_proxy_is_haproxy_in_every_process() -> None:
    env = {one["name"]: one["value"] for one in CLUSTERS[0]["headGroupSpec"]["template"]["spec"]["containers"][0]["env"]}
    assert env["RAY_SERVE_ENABLE_HA_PROXY"] == env["RAY_SERVE_THROUGHPUT_OPTIMIZED"] == "1"
    chosen = {**RETRIED, **LOOKED_AFTER}
    assert {name: env.get(name) for name in chosen} == chosen


def test_requests_fit_the_pods() -> None:
    """The head has no engines; a worker has the cores that it tells Ray of, and room for an engine."""
    head, *workers = groups(CLUSTERS[0])
    assert head["rayStartParams"]["num-cpus"] == "0"
    engines, ingress = APPLICATION["args"]["engines"], APPLICATION["args"]["ingress"]
    for worker in workers:
        (container,) = worker["template"]["spec"]["containers"]
        told = cores(worker["rayStartParams"]["num-cpus"])
        assert told == cores(container["resources"]["requests"]["cpu"])
        assert told >= engines["num_cpus"] + ingress["num_cpus"]
    assert sum(worker["maxReplicas"] for worker in workers if "num-gpus" not in worker["rayStartParams"]) >= engines["max_replicas"]
    (gpu,) = (worker for worker in workers if "num-gpus" in worker["rayStartParams"])
    (container,) = gpu["template"]["spec"]["containers"]
    assert str(container["resources"]["limits"]["nvidia.com/gpu"]) == gpu["rayStartParams"]["num-gpus"]


def test_the_network_policy_finds_the_pods() -> None:
    wanted = find("NetworkPolicy", KUBERAY)["spec"]["podSelector"]["matchLabels"]
    for group in groups(CLUSTERS[0]):
        assert wanted.items() <= group["template"]["metadata"]["labels"].items()
    serve = {port["containerPort"] for ports in parts(CLUSTERS[0], "ports") for port in ports if port["name"] == "serve"}
    assert serve == {8000}  # Serve's default, as the configuration names none
    assert "http_options" not in SERVE


def test_the_application_is_there_and_takes_the_arguments() -> None:
    module, _, name = APPLICATION["import_path"].partition(":")
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).read_text(encoding="utf-8")
    assert name in {node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}
    config = cluster_config(APPLICATION["args"], "rayservice.yaml")
    assert config.engines.max_replicas > config.engines.min_replicas
    assert set(config.settings) <= set(Settings.model_fields)


def test_what_engines_tell_ray_is_read_under_the_servers_names() -> None:
    monitor = find("PodMonitor", KUBERAY)
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    assert all(wanted <= group["template"]["metadata"]["labels"].items() for group in groups(CLUSTERS[0]))
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    for group in groups(CLUSTERS[0]):
        assert endpoint["port"] in {port["name"] for ports in parts(group, "ports") for port in ports}
    assert endpoint["relabelings"] == [{"targetLabel": "job", "replacement": "florence2"}]
    (rule,) = endpoint["metricRelabelings"]
    assert rule["sourceLabels"] == ["__name__"]
    assert rule["targetLabel"] == "__name__"
    for row in TABLE:
        if row.name.startswith("florence2_"):
            assert re.sub(rule["regex"], rule["replacement"].replace("$", "\\"), f"ray_{row.name}") == row.name


def test_the_jobs_command_is_one_of_the_command_line() -> None:
    program, command, *words = shlex.split(JOB["spec"]["entrypoint"])
    assert program == "florence2"
    found = typer.main.get_command(app).commands[command]  # pyright: ignore[reportAttributeAccessIssue]
    assert words[words.index("--address") + 1] == "auto"
    options = {option for parameter in found.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options


def test_the_jobs_workers_are_there_from_the_start() -> None:
    """The command counts nodes and cores when it begins: what came later would have no engine, or many engines one node."""
    head, *workers = groups(CLUSTERS[1])
    assert "enableInTreeAutoscaling" not in CLUSTERS[1]
    assert head["rayStartParams"]["num-cpus"] == "0"
    for worker in workers:
        assert worker["minReplicas"] == worker["replicas"] == worker["maxReplicas"]


@pytest.mark.slow
def test_ray_serve_takes_the_configuration() -> None:
    from ray.serve.schema import ServeDeploySchema

    taken = ServeDeploySchema.model_validate(SERVE)
    assert [one.import_path for one in taken.applications] == [APPLICATION["import_path"]]
    # What it does not know it lets pass: so nothing may be lost.
    assert set(SERVE) <= set(taken.model_dump())
    assert set(APPLICATION) <= set(taken.applications[0].model_dump())
