"""The compose file: its variables are in the example and its mounted files here, and what stands beside the server finds it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from florence2.server.http import health
from florence2.server.settings import Settings
from tests.deploy.files import DEPLOY, DOCKERFILES, environment_of, settings_of, values_of

FOLDER = DEPLOY / "compose"
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
SERVER = COMPOSE["services"]["server"]
WRITTEN_BY_USERS = {"./prometheus.key", "./models"}


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def example() -> dict[str, str]:
    lines = (FOLDER / "env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_variables_are_those_of_the_example_and_no_secret_is_in_either() -> None:
    text = (FOLDER / "compose.yaml").read_text(encoding="utf-8")
    used = set(re.findall(r"(?<!\$)\$\{(\w+)", text))
    assert used - {"PROMETHEUS_KEY_FILE"} == set(example())
    secret = {name for name in used if name.endswith("PASSWORD")}
    assert len(secret) == 3
    assert all(example()[name] == "" for name in secret)
    assert all(f"${{{name}:?" in text for name in secret)
    assert {name: found for name in set(example()) - secret for found in re.findall(rf"\$\{{{name}:-([^}}]*)\}}", text)} == {
        name: value for name, value in example().items() if name not in secret
    }


def test_secrets_are_ignored_by_git() -> None:
    assert {".env", "prometheus.key", "models/"} <= set((FOLDER / ".gitignore").read_text(encoding="utf-8").split())


def test_settings_exist_and_the_server_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {name.removeprefix("FLORENCE2_").lower() for name in SERVER["environment"]}
    assert names <= set(Settings.model_fields)
    settings = settings_of({**environment_of(DOCKERFILES[0]), **SERVER["environment"]}, monkeypatch)
    assert settings.drain_delay_s + settings.drain_timeout_s < seconds(SERVER["stop_grace_period"])


def test_mounted_files_are_there_and_the_volumes_declared() -> None:
    for service in COMPOSE["services"].values():
        for volume in service.get("volumes", ()):
            source = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", volume).split(":")[0]
            assert source in COMPOSE["volumes"] or source in WRITTEN_BY_USERS or (FOLDER / source).is_file(), volume
    build = SERVER["build"]
    assert (FOLDER / build["context"]).resolve() == DEPLOY.parent
    for dockerfile in ("Dockerfile", "Dockerfile.cuda"):
        name = re.sub(r"\$\{[^}]*\}", dockerfile, build["dockerfile"])
        assert (DEPLOY.parent / name).is_file()


def test_the_server_is_locked_in_and_has_the_folders_that_it_writes() -> None:
    assert SERVER["read_only"]
    assert SERVER["cap_drop"] == ["ALL"]
    (volumes,) = values_of(DOCKERFILES[0], "VOLUME")
    mounted = {volume.split(":")[-1] for volume in SERVER["volumes"]}
    assert set(json.loads(volumes)) <= mounted
    assert SERVER["tmpfs"] == ["/tmp"]


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_every_service_has_a_check_a_bound_and_comes_back(name: str) -> None:
    service: dict[str, Any] = COMPOSE["services"][name]
    assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert "mem_limit" in service
    assert service["restart"] == "unless-stopped"
    for other, condition in service.get("depends_on", {}).items() if isinstance(service.get("depends_on"), dict) else ():
        assert "healthcheck" in COMPOSE["services"][other]
        assert condition == {"condition": "service_healthy"}


def test_prometheus_reads_the_server_and_grafana_prometheus() -> None:
    configuration = yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8"))
    (job,) = configuration["scrape_configs"]
    port = Settings.model_fields["port"].default
    assert job["job_name"] == "florence2"
    assert job["static_configs"] == [{"targets": [f"server:{port}"]}]
    mounts = {volume.split(":")[-2]: volume for volume in COMPOSE["services"]["prometheus"]["volumes"] if volume.endswith(":ro")}
    assert job["authorization"]["credentials_file"] in mounts
    assert {f"/etc/prometheus/{name}" for name in configuration["rule_files"]} <= set(mounts)
    (source,) = yaml.safe_load((FOLDER / "grafana" / "datasources.yaml").read_text(encoding="utf-8"))["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((FOLDER / "grafana" / "dashboards.yaml").read_text(encoding="utf-8"))["providers"]
    grafana = COMPOSE["services"]["grafana"]
    dashboard = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert dashboard.startswith(provider["options"]["path"])
    assert any(volume.split(":")[1] == dashboard for volume in grafana["volumes"] if volume.endswith(":ro"))


def test_the_server_is_healthy_when_it_is_ready() -> None:
    path = SERVER["healthcheck"]["test"][-1]
    assert path == "/readiness"
    assert path in {route.path for route in health.router.routes}  # pyright: ignore[reportAttributeAccessIssue]
    assert SERVER["ports"][0].endswith(f":{Settings.model_fields['port'].default}")
