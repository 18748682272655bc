"""The tiles of a request, bounded: each is a picture more to be encoded, so that a request takes places for all of them.

In: the fields of any API. Out: ``Tiles`` that go with the request's prompts, or a refusal that names the field. Knows no API.
"""

from __future__ import annotations

from collections.abc import Sequence

from florence2.errors import InvalidOption
from florence2.server.errors import ImageTooLarge
from florence2.server.inference.request import RequestPrompt
from florence2.tiling.tasks import check_tiled
from florence2.tiling.tiles import Tiles, read_tiles


def tiles_of(
    cut: str | int | None,
    overlap: float | None,
    tiles_only: bool,
    prompts: Sequence[RequestPrompt],
    *,
    is_streamed: bool,
    max_tiles: int,
) -> Tiles | None:
    """The tiles that a request asks for; None where it asks for none.

    Args:
        cut: the field ``tiles``.
        overlap: the field ``tile_overlap``.
        tiles_only: the field of that name.
        prompts: the request's prompts, parsed.
        is_streamed: the answer is to be streamed.
        max_tiles: the most tiles of a picture.

    Raises:
        InvalidOption: they are wrong, too many, or go with neither the prompts nor a stream; ``field`` names the field.
    """
    tiles = read_tiles(cut, overlap, tiles_only)
    if tiles is None:
        return None
    if is_streamed:
        raise InvalidOption("answers in tiles can't be streamed, as they are made one at the end: leave stream or tiles out", field="tiles")
    columns, rows = tiles.grid or (1, 1)
    if columns * rows > max_tiles:
        raise InvalidOption(f"at most {max_tiles} tiles are taken here; a grid of {tiles.cut} has {columns * rows}", field="tiles")
    for prompt in prompts:
        try:
            check_tiled(prompt.prompt)
        except InvalidOption as error:
            raise (error if prompt.where is None else error.with_message(f"{prompt.where}: {error.message}")) from None
    return tiles


def num_extra_parts(tiles: Tiles, size: tuple[int, int], max_tiles: int) -> int:
    """How many pictures more than one are to be encoded for a picture of this size.

    Raises:
        InvalidImage: the picture is so large that it has too many tiles.
    """
    num_tiles = tiles.num_tiles(size)
    if num_tiles > max_tiles:
        raise ImageTooLarge(
            f"a picture of {size[0]} x {size[1]} pixels has {num_tiles} tiles of {tiles.cut} pixels, and at most {max_tiles} are taken "
            f"here: send a side of {tiles.smallest_side(size, max_tiles)} or more, or a grid, or scale the picture down",
            field="tiles",
        )
    return num_tiles - (num_tiles == 1 or not tiles.includes_whole)
