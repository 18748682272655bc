"""The notebooks of ``examples/`` run from their first cell to their last in a real kernel, and show what is committed with them."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from docs.notebooks import executed
from tests.docs.markdown import ROOT

NOTEBOOK = ROOT / "examples" / "florence2.ipynb"
MAX_BYTES = 1_000_000
RICH = {"shown": "text/html", "draw": "image/png", "annotators": "image/png", "read-back": "image/png"}


def outputs(notebook: Any) -> Iterator[tuple[str, Any]]:
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            yield cell.id, output


def kinds(notebook: Any) -> list[tuple[str, str, set[str]]]:
    """What each cell shows, whatever its values: stream or result, and the formats of a result; a picture counts in one format."""
    shown = [(cell, each.output_type, set(each.get("data", ()))) for cell, each in outputs(notebook)]
    return [(cell, kind, {"image/png" if name == "image/jpeg" else name for name in names}) for cell, kind, names in shown]


@pytest.mark.slow
def test_the_notebook_runs_and_shows_what_is_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in (NOTEBOOK, NOTEBOOK.with_name("scene.png")):
        shutil.copy(file, tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    ran = executed(tmp_path / NOTEBOOK.name)
    assert kinds(ran) == kinds(nbformat.read(NOTEBOOK, as_version=4))
    found = {cell: names for cell, kind, names in kinds(ran) if kind == "execute_result"}
    assert {cell: name for cell, name in RICH.items() if name not in found[cell]} == {}
    printed = {cell: output.text for cell, output in outputs(ran) if output.output_type == "stream"}
    assert "6 pictures" in printed["label"]
    assert "yellow star" in printed["objects"]


def test_what_is_committed_is_small_whole_and_of_no_machine() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    assert len(text) < MAX_BYTES
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [cell for cell, output in outputs(notebook) if output.get("name") == "stderr" or output.output_type == "error"]
    said = json.dumps([output.get("text", "") for _, output in outputs(notebook)])
    assert not re.search(r"/(?:tmp|home|root|work|Users)/|site-packages", said)
