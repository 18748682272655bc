"""The tools over the protocol's own client, in memory, with an engine that answers at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from PIL import Image

from fixtures.fake_engine import FakeEngine
from florence2.mcp.folders import Folders
from florence2.mcp.model import AnsweringEngine, BackgroundModel
from florence2.mcp.pictures import Pictures
from florence2.mcp.server import make_server
from florence2.url_policy import FetchPolicy

SIZE = (60, 40)


def words_of(result: Any) -> str:
    """The text of an answer."""
    return "\n".join(block.text for block in result.content if block.type == "text")


class Tools:
    """A server with one client, made anew for each conversation."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.engine = FakeEngine()
        self.load: Callable[[], AnsweringEngine] = lambda: self.engine
        self.policy: FetchPolicy | None = None
        self.allowed = [folder]
        self.model: BackgroundModel | None = None

    def talk(self, conversation: Callable[[Client], Awaitable[Any]], *, mode: Any = "auto") -> Any:
        """What a conversation with the server gives."""

        self.engine.is_closed = False

        async def once() -> Any:
            pictures = Pictures(Folders(self.allowed), policy=self.policy)
            self.model = BackgroundModel("a-model", self.load)
            try:
                async with Client(make_server(self.model, pictures), mode=mode) as client:
                    return await asyncio.wait_for(conversation(client), 20)
            finally:
                await pictures.close()
                self.model.close()

        return asyncio.run(once())

    def call(self, tool: str, **arguments: Any) -> Any:
        """The answer to one call."""
        return self.talk(lambda client: client.call_tool(tool, arguments))

    def refused(self, tool: str, **arguments: Any) -> str:
        """The words of a call's error."""
        result = self.call(tool, **arguments)
        assert result.is_error, result
        assert result.structured_content is None
        assert not self.engine.asked
        return words_of(result)


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    folder = tmp_path / "allowed"
    folder.mkdir()
    Image.new("RGB", SIZE, "white").save(folder / "a.png")
    return Tools(folder)
