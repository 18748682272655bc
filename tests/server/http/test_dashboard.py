"""The dashboard and the alerts of ``deploy/``: every name in them is one that a server exposes, and nothing of its own is forgotten."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from fixtures.fake_engine import FakeEngine
from florence2.server.errors import TABLE as ERRORS
from florence2.server.http.metric_table import TABLE
from tests.server.fakes import body, client_of

DEPLOY = Path(__file__).parents[3] / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "florence2.json").read_text(encoding="utf-8"))
ALERTS = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))
BY_PROMETHEUS = {"instance", "job", "le"}
FUNCTIONS = {"sum", "max", "by", "rate", "increase", "histogram_quantile", "predict_linear", "label_values"}
LEFT_OUT: set[str] = set()
"""Metrics of this server's own that the dashboard does not show, on purpose."""


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    """Every expression, and what is written beside its values."""
    for panel in panels():
        yield from ((target["expr"], target["legendFormat"]) for target in panel["targets"])
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"], ""
    for group in ALERTS["groups"]:
        yield from ((rule["expr"], rule["annotations"]["summary"]) for rule in group["rules"])


def names_in(expression: str) -> set[str]:
    """The metrics that an expression reads."""
    bare = re.sub(r"\{[^{}]*\}|\[[^\]]*\]|\bby \([^)]*\)|label_values\([^,]*,[^)]*\)", " ", expression)
    variables = re.findall(r"label_values\((\w+),", expression)
    return {name for name in re.findall(r"[a-zA-Z_]\w*", bare) if name not in FUNCTIONS} | set(variables)


def labels_in(expression: str, beside: str) -> set[str]:
    """The labels that an expression, or the text beside it, names."""
    matched = re.findall(r"[{,](\w+)(?:=~|!~|!=|=)", expression)
    grouped = [label for found in re.findall(r"\bby \(([^)]*)\)", expression) for label in re.split(r", *", found) if label]
    shown = re.findall(r"\{\{(?:\s*\$labels\.)?(\w+)\s*\}\}", re.sub(r"\{\{ \$value[^}]*\}\}", "", beside).replace("{{ $labels.", "{{"))
    return {*matched, *grouped, *shown, *re.findall(r"label_values\(\w+, (\w+)\)", expression)}


async def exposed() -> dict[str, set[str]]:
    """The names of all series of a server that was asked a few things, each with its labels."""
    async with client_of(FakeEngine(), api_keys=["first-key-1"], management_keys=["second-key"]) as client:
        await client.post("/infer/lmm", json=body(api_key="first-key-1", prompt="<OD>", stream=True))
        await client.post("/infer/lmm", json=body(api_key="wrong"))
        text = (await client.get("/metrics", headers={"authorization": "Bearer second-key"})).text
    found: dict[str, set[str]] = {"up": set()}  # Prometheus' own
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


@pytest.mark.anyio
async def test_every_name_and_label_is_one_that_a_server_exposes() -> None:
    known = await exposed()
    num_checked = 0
    for expression, beside in expressions():
        names = names_in(expression)
        assert names, expression
        assert names <= set(known), expression
        labels = set.union(*(known[name] for name in names)) | BY_PROMETHEUS
        assert labels_in(expression, beside) <= labels, expression
        num_checked += 1
    assert num_checked > 60


def test_codes_that_are_matched_exist() -> None:
    codes = {*ERRORS, "ok"}
    for expression, _ in expressions():
        assert set(re.findall(r'code!?="(\w+)"', expression)) <= codes, expression


def test_every_own_metric_is_shown_or_left_out_on_purpose() -> None:
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for panel in panels() for one in panel["targets"] for name in names_in(one["expr"])}
    assert {row.name for row in TABLE} - shown == LEFT_OUT


def test_panels_have_a_place_and_a_number_of_their_own() -> None:
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        assert len({target["refId"] for target in panel.get("targets", ())}) == len(panel.get("targets", ()))


def test_prometheus_reads_the_alerts_and_each_says_what_is_wrong() -> None:
    configuration = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    assert all((DEPLOY / "prometheus" / name).is_file() for name in configuration["rule_files"])
    assert [job["job_name"] for job in configuration["scrape_configs"]] == ["florence2"]
    rules = [rule for group in ALERTS["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert "{{ $labels.instance }}" in rule["annotations"]["summary"]
