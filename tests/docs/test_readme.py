"""The README makes a stranger successful in two minutes: a picture first, three steps, and nothing that a phone can't show."""

from __future__ import annotations

import json
import re
import tomllib

import pytest

from docs import figures
from tests.docs.markdown import ROOT, fences

README = (ROOT / "README.md").read_text(encoding="utf-8")
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
PHONE_CHARACTERS = 56  # of a table's row
CHANGELOG_SECTIONS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_a_picture_comes_first():
    assert README.index("![") < min(README.index("```"), README.index("\n## "))


def test_three_steps_install_ask_and_serve():
    lines = [line for fence in fences(README) if fence.language == "sh" for line in fence.content.splitlines()]
    steps = ("pip install", "florence2 infer", "florence2 serve")
    firsts = [next(index for index, line in enumerate(lines) if line.startswith(step)) for step in steps]
    assert firsts == sorted(firsts)
    assert lines[firsts[2] + 1].startswith("curl http://localhost:9001/infer/lmm")


def test_the_two_commands_of_a_clone():
    assert [line.split("#")[0].strip() for line in fences(README)[-1].content.splitlines()] == ["make run", "make test"]


def test_no_table_is_wider_than_a_phone():
    rows = [line for line in README.splitlines() if line.startswith("|")]
    shown = ["".join(cell.strip() for cell in re.sub(r"\[([^]]*)\]\([^)]*\)|`", r"\1", row).split("|")) for row in rows]
    assert rows
    assert [row for row in shown if len(row) > PHONE_CHARACTERS] == []


@pytest.mark.parametrize("name", [name for name in EXTRAS if name not in ("dev", "tensorboard")])
def test_each_extra_is_named(name: str):
    assert f"`{name}`" in README


def test_the_chart_shows_the_results_that_are_there():
    drawn = json.loads((ROOT / "docs" / "pictures" / "speed.json").read_text(encoding="utf-8"))
    assert drawn == figures.speed_chart()
    assert (ROOT / "docs" / "pictures" / "speed.png").stat().st_size > 10_000


def test_the_changelog_keeps_its_form():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert versions[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", version) for version in versions[1:]), versions
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= CHANGELOG_SECTIONS


def test_the_table_shows_the_measured_ratios():
    cases = json.loads((ROOT / "benchmarks" / "results" / "compare.json").read_text(encoding="utf-8"))["figures"]["cases"]
    ratio = cases["base, five tasks on one image, 3 beams, 33 tokens"]["times_faster"]["ours auto"]["transformers bf16"]
    assert f"| Speed: five questions on one picture | {ratio:.1f} x |" in README


def test_what_processors_without_bfloat16_do_is_said_too():
    cases = json.loads((ROOT / "benchmarks" / "results" / "compare_without_bf16.json").read_text(encoding="utf-8"))["figures"]["cases"]
    ratio = cases["base, one request, greedy, 33 tokens"]["times_faster"]["ours int8"]["transformers fp32"]
    assert f"`int8` is {ratio:.1f} to " in README
