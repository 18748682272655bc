"""The tiles of a request as JSON or a form holds them: a text or a whole number. What they mean is checked in ``florence2.tiling``."""

from __future__ import annotations

from typing import Annotated

from pydantic import Discriminator, Field, StrictInt, Tag

TILES = "Ask about overlapping parts of the picture, too, for small things: a grid of columns x rows, or the side of a tile in pixels."
OVERLAP = "Share of a tile that its neighbour shows, too, 0 to 0.5. Default: 0.2."
ONLY = "With tiles: do not ask about the whole picture besides."


_FORMS = 'Input should be a grid of columns x rows such as "2x2", or the side of a tile in pixels such as 640'


def _form(value: object) -> str | None:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return "as number" if is_number else "as text" if isinstance(value, str) else None


# Discriminated by their JSON type, so that an error is about the form that was meant, and says both of what has neither.
TilesValue = Annotated[
    Annotated[Annotated[str, Field(max_length=64)], Tag("as text")] | Annotated[StrictInt, Tag("as number")],
    Discriminator(_form, custom_error_type="tiles_type", custom_error_message=_FORMS),
]
