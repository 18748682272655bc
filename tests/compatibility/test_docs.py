"""The client's code on its page and in the README runs as it stands, against a real server."""

from __future__ import annotations

import ast
import contextlib
import io
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.compatibility.session import KEY
from tests.docs.markdown import ROOT, fences


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder that the blocks run in, so that what they write does not stay."""
    (tmp_path / "examples").mkdir()
    shutil.copy(ROOT / "examples" / "scene.png", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_code_of_the_page(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = run_page(ROOT / "docs" / "client.md", server, monkeypatch)
    assert len(printed) >= 5
    assert "no file 'missing.png'" in "".join(printed)
    assert "400 invalid_prompt" in printed[-1]


def test_code_of_the_readme(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answer, streamed, said = run_page(ROOT / "README.md", server, monkeypatch)
    assert answer.startswith("{'<CAPTION>': ")
    assert len(streamed.splitlines()) >= 1
    assert ast.literal_eval(answer) == {"<CAPTION>": said.removesuffix("\n")}


def run_page(page: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What each block prints."""
    for name in ("FLORENCE2_API_KEY", "API_KEY"):
        monkeypatch.setenv(name, KEY)
    names: dict[str, Any] = {"__name__": "page"}
    printed = []
    for block in fences(page.read_text(encoding="utf-8")):
        if block.language == "py":
            source = "\n" * (block.line - 1) + block.content.replace("http://localhost:9001", server)
            with contextlib.redirect_stdout(io.StringIO()) as output, contextlib.redirect_stderr(io.StringIO()):
                exec(compile(source, str(page), "exec"), names)
            printed.append(output.getvalue())
    names["client"].close()
    return printed
