"""The code on the client's page runs as it stands, against a real server."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import pytest

from tests.compatibility.session import KEY
from tests.docs.markdown import ROOT, fences


def test_code_of_the_page(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = ROOT / "docs" / "client.md"
    blocks = [fence for fence in fences(page.read_text(encoding="utf-8")) if fence.language == "py"]
    assert len(blocks) >= 5
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("FLORENCE2_API_KEY", KEY)
    names: dict[str, Any] = {"__name__": "page"}
    printed = []
    for block in blocks:
        source = "\n" * (block.line - 1) + block.content.replace("http://localhost:9001", server)
        with contextlib.redirect_stdout(io.StringIO()) as output, contextlib.redirect_stderr(io.StringIO()):
            exec(compile(source, str(Path(page)), "exec"), names)
        printed.append(output.getvalue())
    names["client"].close()
    assert "no file 'missing.png'" in "".join(printed)
    assert "400 invalid_prompt" in printed[-1]
