"""The scores of an answer as the real ``supervision`` has them, by the code of the page on scores."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.docs.markdown import ROOT, fences

ANSWER = {
    "<OD>": {
        "bboxes": [[90, 136, 170, 214], [106, 2, 291, 169], [228, 90, 369, 231]],
        "labels": ["white circle", "yellow star", "purple circle"],
        "scores": [0.97, 0.31, 0.5],
    }
}


@pytest.mark.slow
def test_scores_become_the_confidence_of_detections(known_python: Path) -> None:
    page = (ROOT / "docs" / "scores.md").read_text(encoding="utf-8")
    (block,) = [fence.content for fence in fences(page) if fence.language == "py"]
    ran = subprocess.run(
        [str(known_python), "-c", f"answer = {{'response': {ANSWER!r}}}\n{block}"],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "white circle, purple circle\n"
