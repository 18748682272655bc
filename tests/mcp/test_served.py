"""A model of a running server in place of one that is loaded: the same answers, the server's refusals, and a server that is not there."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from PIL import Image

from florence2.mcp.folders import Folders
from florence2.mcp.pictures import Pictures
from florence2.mcp.served import ServedModel
from florence2.mcp.server import make_server
from tests.mcp.conftest import words_of
from tests.server.process import running_server

CALLS: list[tuple[str, dict[str, Any]]] = [
    ("caption", {}),
    ("detect", {"classes": ["a", "b"], "draw": True}),
    ("segment", {"region": [0, 0, 30, 20]}),
    ("read_text", {"places": True}),
    ("ask", {"prompt": "<MINE>", "allow_unknown_tag": True, "max_new_tokens": 4}),
]


def answers(model: ServedModel, folder: Path, calls: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    async def talk() -> list[Any]:
        pictures = Pictures(Folders([folder]))
        async with Client(make_server(model, pictures)) as client:
            found = await asyncio.gather(*(client.call_tool(tool, {"image": "a.png", **given}) for tool, given in calls))
        await pictures.close()
        return found

    return asyncio.run(asyncio.wait_for(talk(), 60))


@pytest.mark.slow
def test_tools_ask_a_running_server(tmp_path: Path) -> None:
    Image.effect_noise((60, 40), 100).convert("RGB").save(tmp_path / "a.png")
    with running_server(model=["florence-2-demo"]) as url:
        found = answers(ServedModel("florence-2-demo", url), tmp_path, CALLS)
        for (tool, given), answer in zip(CALLS, found, strict=True):
            assert not answer.is_error, (tool, words_of(answer))
            assert answer.structured_content["image"] == {"width": 60, "height": 40}
            assert [block.type for block in answer.content] == ["text", "image"][: 1 + given.get("draw", False)]
        assert found[-1].structured_content["is_complete"] is False
        (wrong,) = answers(ServedModel("absent", url), tmp_path, [("caption", {})])
        assert wrong.is_error
        assert words_of(wrong).startswith("Unknown model 'absent'. This server has: florence-2-demo")
    (gone,) = answers(ServedModel("florence-2-demo", url), tmp_path, [("caption", {})])
    assert gone.is_error
    assert "is the server running?" in words_of(gone)
