"""The page on moving here: each block runs with what it names, the real ``inference-sdk`` included, and old and new print the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.markdown import ROOT, fences

PAGE = ROOT / "docs" / "migrate.md"
PUBLISHED = "florence-community/Florence-2-base"


def run(python: Path, source: str, server: str) -> str:
    """What a block prints, with the demo for the published model, which would have to be downloaded."""
    source = source.replace("http://localhost:9001", server).replace(PUBLISHED, str(ROOT / "src" / "florence2" / "demo"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    if python != Path(sys.executable):
        del environment["PYTHONPATH"]
    ran = subprocess.run(
        [str(python), "-c", source], cwd=ROOT, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.slow
def test_blocks_print_the_same_before_and_after(server: str, known_python: Path) -> None:
    blocks = [fence.content for fence in fences(PAGE.read_text(encoding="utf-8")) if fence.language == "py"]
    assert len(blocks) == 8
    for before, after in zip(blocks[::2], blocks[1::2], strict=True):
        assert "florence2" not in before.replace("Florence2ForConditionalGeneration", "")
        assert "florence2" in after
        old = run(known_python if "inference_sdk" in before else Path(sys.executable), before, server)
        assert old == run(Path(sys.executable), after, server)
        assert len(old) > 10
