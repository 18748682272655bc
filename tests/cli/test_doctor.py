"""``florence2 doctor``: each part works where another is broken."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from florence2 import __version__
from florence2.doctor import examine
from florence2.errors import CheckpointError
from tests.cli.conftest import Cli


def test_people_get_a_line_for_each_part(cli: Cli) -> None:
    code, out, err = cli("doctor", "--quick")
    assert (code, err) == (0, "")
    labels = [line.split("  ")[0] for line in out.splitlines() if not line.startswith(" ")]
    assert {"florence2", "processor", "PyTorch", "routines", "precision", "models here", "folders"} <= set(labels)
    assert max(map(len, out.splitlines())) <= 160
    assert f"florence2    {__version__}, " in out
    assert "florence-2-demo" in out
    assert "speed" not in labels


def test_programs_get_json(cli: Cli) -> None:
    code, out, _ = cli("doctor", "--quick", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["version"] == __version__
    assert found["problems"] == []
    assert found["routines"]["kind"] in {"wheel", "cache", "built", "none", "off"}
    assert found["automatic"]["precision"] in {"fp32", "bf16", "fp16"}
    assert found["extras"]["engine"] is True
    assert found["estimate"] is None


def test_a_measurement_is_said_to_be_an_estimate(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from florence2.doctor.report import Estimate

    monkeypatch.setattr(examine, "_estimate", lambda _: Estimate("florence-2-base", "fp32", 20, 3, 6.04, 0.25, 0.04))
    _, out, _ = cli("doctor")
    said = " ".join(out.split())
    assert (
        "about 7.1 s an image with florence-2-base in fp32, 20 tokens and 3 beams: vision 6.0 s, prompt 250 ms, each token 40 ms." in said
    )
    assert "An estimate" in said
    assert json.loads(cli("doctor", "--json")[1])["estimate"]["image_s"] == pytest.approx(7.09)


def test_a_model_that_can_not_be_loaded_is_broken(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged() -> None:
        raise CheckpointError("model.safetensors is damaged")

    monkeypatch.setattr(examine, "_demo_answers", damaged)
    code, out, err = cli("doctor")
    assert code == 1
    assert "broken       the demo model does not answer: model.safetensors is damaged" in out
    assert "Traceback" not in err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ("sys.modules['torch'] = None", r"no model can run: torch is missing; pip install 'florence2-engine\[engine\]'"),
        ("sys.modules['safetensors'] = None", r"the demo model does not answer: .*safetensors"),
        ("os.environ['FLORENCE2_NATIVE'] = 'maybe'", r"FLORENCE2_NATIVE must be 1 .* or 0 .*, got 'maybe'"),
    ],
)
def test_what_is_missing_is_said_and_the_rest_shown(tmp_path: Path, broken: str, says: str) -> None:
    script = f"import os, sys; {broken}; from florence2.cli import main; main(['doctor', '--quick'])"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=200)
    assert ran.returncode == 1, ran.stderr
    assert ran.stderr == ""
    said = " ".join(ran.stdout.split())
    assert re.search(f"broken .*{says}", said)
    assert "processor " in said
    assert "extras " in said
