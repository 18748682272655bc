"""The first answer of an engine, which is slower than all others: asked for before a server says that it is ready."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from florence2.engine.engine import Engine


def warm_up(engine: Engine) -> None:
    """Have one small picture answered."""
    engine.run(Image.new("RGB", (64, 48)), "<CAPTION>", max_new_tokens=4)
