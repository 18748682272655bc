"""curl, with bodies as users write them."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.compatibility.session import KEY


def curl(*arguments: str) -> tuple[int, Any, dict[str, str]]:
    """Status, body and headers."""
    program = shutil.which("curl")
    assert program, "these tests need curl"
    command = [program, "--silent", "--show-error", "--noproxy", "*", "--max-time", "60", "--include", *arguments]
    ran = subprocess.run(command, capture_output=True, check=True)
    head, _, content = ran.stdout.decode().rpartition("\r\n\r\n")
    lines = head.split("\r\n\r\n")[-1].split("\r\n")  # behind an interim answer, if there was one
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    is_json = headers.get("content-type", "").startswith("application/json")
    return int(lines[0].split()[1]), json.loads(content) if is_json else content, headers


@pytest.mark.slow
def test_the_documented_call(server: str, folder: Path) -> None:
    url = (folder / "url.txt").read_text()
    body = f"""{{"api_key": "{KEY}",
  "image": {{"type": "url", "value": "{url}"}}, "model_id": "florence-2-base", "prompt": "<CAPTION>"}}"""
    status, answer, headers = curl("--location", f"{server}/infer/lmm", "-H", "Content-Type: application/json", "-d", body)
    assert status == 200
    assert answer["image"] == {"width": 480, "height": 480}
    assert len(answer["response"]["<CAPTION>"]) > 3
    assert headers["x-model-id"] == "florence-2-base"
    assert headers["x-request-id"]


@pytest.mark.parametrize("path", ["/infer/lmm", "//infer/lmm", "/infer/lmm/florence-2-base", "/infer/lmm/florence-pretrains/3"])
@pytest.mark.parametrize("key", ["query", "bearer"])
def test_paths_and_places_of_the_key(server: str, folder: Path, tmp_path: Path, path: str, key: str) -> None:
    image = {"type": "base64", "value": base64.b64encode((folder / "scene.jpg").read_bytes()).decode()}
    model = "florence-pretrains/3" if path.endswith("/3") else "florence-2-base"
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"image": image, "model_id": model, "prompt": "<CAPTION>", "api_key": "wrong, but weaker"}))
    query, header = (f"?api_key={KEY}", "X-None: 1") if key == "query" else ("", f"Authorization: bearer {KEY}")
    status, answer, _ = curl(f"{server}{path}{query}", "-H", header, "-H", "Content-Type: application/json", "--data", f"@{body}")
    assert status == 200, answer
    assert list(answer["response"]) == ["<CAPTION>"]


def test_form_and_raw_image(server: str, folder: Path) -> None:
    fields = ["-F", f"image=@{folder / 'scene.jpg'}", "--form-string", "prompt=<CAPTION>", "-F", "model_id=florence-2-base"]
    status, form, _ = curl(f"{server}/infer/lmm?api_key={KEY}", *fields)
    assert status == 200, form
    query = f"api_key={KEY}&model_id=florence-2-base&prompt=%3CCAPTION%3E"
    raw = ["-H", "Content-Type: image/jpeg", "--data-binary", f"@{folder / 'scene.jpg'}"]
    status, posted, _ = curl(f"{server}/infer/lmm?{query}", *raw)
    assert status == 200, posted
    assert form["response"] == posted["response"]


def test_errors_say_what_to_do_and_hold_no_secret(server: str) -> None:
    body = '{"api_key": "KEY1234567890", "model_id": "florence-2-base", "prompt": 5, "image": {"value": "AAAA"}}'
    status, answer, _ = curl(f"{server}/infer/lmm", "-H", "Content-Type: application/json", "-d", body)
    assert status == 422
    assert {"message", "code", "field", "help_url"} <= answer.keys()
    assert KEY not in json.dumps(answer)
    assert "AAAA" not in json.dumps(answer)
    status, answer, _ = curl(f"{server}/infer/lmm", "-H", "Content-Type: application/json", "-d", "{}")
    assert (status, answer["message"], answer["status"]) == (401, "Unauthorized api_key", 401)
