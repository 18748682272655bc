"""The tiles of a request as JSON or a form holds them: a text or a whole number. What they mean is checked in ``florence2.tiling``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Discriminator, Field, StrictInt, Tag

TILES = "Ask about overlapping parts of the picture, too, for small things: a grid of columns x rows, or the side of a tile in pixels."
OVERLAP = "Share of a tile that its neighbour shows, too, 0 to 0.5. Default: 0.2."
ONLY = "With tiles: do not ask about the whole picture besides."


def _form(value: object) -> str:
    return "as number" if isinstance(value, int) else "as text"


# Discriminated by their JSON type, so that an error is about the form that was meant.
TilesValue = Annotated[
    Annotated[Annotated[str, Field(max_length=64)], Tag("as text")] | Annotated[StrictInt, Tag("as number")], Discriminator(_form)
]
