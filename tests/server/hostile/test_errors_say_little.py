"""Whatever an engine's error holds, and whichever code it has: no answer carries a path, a key or a stack trace."""

from __future__ import annotations

import pytest

from fixtures.fake_engine import FakeEngine
from florence2.server.errors import TABLE
from tests.server.fakes import body, client_of, image_field

pytestmark = pytest.mark.anyio

KEY = "sk-secret0123456789abcdef"
TEXT = (
    "RuntimeError: /srv/models/florence/model.safetensors and C:\\models\\x.bin and '/home/me/my models/y' are damaged\n"
    f'Traceback (most recent call last):\n  File "/srv/app/engine.py", line 7, in step\n    key="{KEY}"'
)
SERVERS = [code for code, kind in TABLE.items() if kind.status >= 500]
CHAT = [{"role": "user", "content": [{"type": "text", "text": "<OD>"}, {"type": "image_url", "image_url": {"url": ""}}]}]


@pytest.mark.parametrize("code", SERVERS)
async def test_errors_of_the_server_name_nothing_of_it(code: str) -> None:
    engine = FakeEngine()
    engine.failure = TABLE[code](TEXT)
    await _holds_nothing(engine, code)


@pytest.mark.parametrize("kind", [RuntimeError, KeyError, MemoryError, OSError, ValueError, AssertionError])
async def test_errors_of_others_name_nothing_of_it(kind: type[Exception]) -> None:
    engine = FakeEngine()
    engine.failure = kind(TEXT)
    await _holds_nothing(engine, "")


async def _holds_nothing(engine: FakeEngine, code: str) -> None:
    CHAT[0]["content"][1]["image_url"]["url"] = f"data:image/png;base64,{image_field()['value']}"  # type: ignore[index]
    chat = {"model": "florence-2-base", "messages": CHAT}
    items = body(image=[image_field()] * 2, on_error="item")
    sent = [("/infer/lmm", body()), ("/infer/lmm", items), ("/infer/lmm", body(stream=True)), ("/v1/chat/completions", chat)]
    async with client_of(engine) as client:
        for path, content in [*sent, ("/v1/chat/completions", {**chat, "stream": True})]:
            text = (await client.post(path, json=content)).text
            assert code in text
            assert not [word for word in (KEY, "/srv", "C:\\", "/home", "my models", "Traceback", "line 7") if word in text], (path, text)
