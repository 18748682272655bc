"""The server opens no file and fetches nothing because a text reached the engine: engines get pictures, whatever a request says."""

from __future__ import annotations

import ast
import base64
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fixtures.fake_engine import FakeEngine
from tests.server.fakes import body, client_of

SERVER = Path(__file__).parents[2] / "src" / "florence2" / "server"


def test_the_server_knows_nothing_that_finds_inputs() -> None:
    for path in SERVER.rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        names = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert not [name for name in names if name.startswith("florence2.inputs") or name in ("run_images", "image_runs")], path


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["base64", "url", "file", "path", "numpy_object", None])
@pytest.mark.parametrize("as_base64", [False, True])
async def test_texts_are_never_taken_as_names(tmp_path: Path, kind: str | None, as_base64: bool) -> None:
    secret = tmp_path / "secret.png"
    Image.new("RGB", (9, 9)).save(secret)
    engine = FakeEngine()
    for text in (str(secret), secret.as_uri(), f"{tmp_path}/*.png", f"@{secret}", "-", str(tmp_path), "data:text/plain," + str(secret)):
        value = base64.b64encode(text.encode()).decode() if as_base64 else text
        image: Any = value if kind is None else {"type": kind, "value": value}
        async with client_of(engine) as client:
            for path in ("/infer/lmm", "/v1/chat/completions"):
                content = [{"type": "image_url", "image_url": {"url": value}}, {"type": "text", "text": "<OD>"}]
                chat = {"model": "florence-2-base", "messages": [{"role": "user", "content": content}]}
                answer = await client.post(path, json=body(image=image) if path == "/infer/lmm" else chat)
                assert 400 <= answer.status_code < 500, (path, text, answer.text)
    assert engine.asked == []


@pytest.mark.anyio
async def test_engines_get_pictures() -> None:
    engine = FakeEngine()
    async with client_of(engine) as client:
        assert (await client.post("/infer/lmm", json=body())).status_code == 200
    assert [type(picture) for picture in engine.pictures] == [Image.Image]
