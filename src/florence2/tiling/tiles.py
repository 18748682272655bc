"""How a picture is cut into tiles: a grid or a size, and how far neighbours overlap.

In: what a caller writes ("2x2", 640) and a picture's size. Out: the boxes of its tiles, the same for the same size, which cover every
pixel. Knows nothing of pixels, prompts or answers.
"""

from __future__ import annotations

import numbers
import re
from bisect import bisect_left
from dataclasses import dataclass
from math import ceil

from florence2.errors import InvalidImage, InvalidOption

TileBox = tuple[int, int, int, int]
"""A tile's place in its picture: x1, y1, x2, y2 in whole pixels, x2 and y2 just behind its last pixel."""

MAX_TILES = 64
MIN_SIDE = 64
MAX_OVERLAP = 0.5
DEFAULT_OVERLAP = 0.2

_MOST_SIDE = 2**31
_GRID = re.compile("\\s*([0-9]{1,9})\\s*[xX\u00d7*]\\s*([0-9]{1,9})\\s*")
_SIDE = re.compile(r"\s*([0-9]{1,9})\s*(?:px)?\s*")
_FORMS = f'a grid of columns x rows such as "2x2", or the side of a tile in pixels such as 640 (at least {MIN_SIDE})'


@dataclass(frozen=True)
class Tiles:
    """A picture cut into overlapping tiles.

    Attributes:
        cut: columns and rows ("2x2"), or the side of a tile in pixels ("640", or 640); kept as text.
        overlap: the share of a tile's width and height that it has in common with its neighbour, 0 to 0.5; with a side, at least that.
        includes_whole: whether the whole picture is asked about too, which finds what is larger than a tile.

    Raises:
        InvalidOption: a value of the wrong type or out of range; ``field`` is "tiles", or "tile_overlap" for the overlap.
    """

    cut: str
    overlap: float = DEFAULT_OVERLAP
    includes_whole: bool = True

    def __init__(self, cut: str | int, overlap: float = DEFAULT_OVERLAP, includes_whole: bool = True) -> None:
        object.__setattr__(self, "cut", _checked_cut(cut))
        object.__setattr__(self, "overlap", _checked_overlap(overlap))
        if not isinstance(includes_whole, bool):
            raise InvalidOption(f"includes_whole must be True or False, got {includes_whole!r}", field="tiles")
        object.__setattr__(self, "includes_whole", includes_whole)

    @property
    def grid(self) -> tuple[int, int] | None:
        """Columns and rows; None where the side of a tile is given."""
        match = _GRID.fullmatch(self.cut)
        return None if match is None else (int(match[1]), int(match[2]))

    def boxes(self, size: tuple[int, int]) -> list[TileBox]:
        """What is asked about in a picture of this size: the whole picture where that is included, then its tiles row by row.

        Neighbours overlap, and every pixel lies in a tile. No tile is narrower or lower than ``MIN_SIDE`` pixels unless the picture is: a
        small picture has fewer columns or rows. A picture that is not larger than one tile is asked about once, as a whole.

        Args:
            size: width and height in pixels.

        Raises:
            InvalidImage: the picture is so large that it would have more than 64 tiles; ``field`` is "tiles".
        """
        num_columns, num_rows = (self._num_spans(axis, side) for axis, side in enumerate(size))
        if num_columns * num_rows > MAX_TILES:
            raise self._too_many(size, num_columns, num_rows)
        columns, rows = self._spans(num_columns, size[0]), self._spans(num_rows, size[1])
        tiles = [(left, top, right, bottom) for top, bottom in rows for left, right in columns]
        whole = (0, 0, *size)
        return [whole] if len(tiles) == 1 else [whole, *tiles] if self.includes_whole else tiles

    def num_tiles(self, size: tuple[int, int]) -> int:
        """How many tiles a picture of this size has, be they too many; the whole picture does not count unless it is the only one."""
        return self._num_spans(0, size[0]) * self._num_spans(1, size[1])

    def smallest_side(self, size: tuple[int, int], max_tiles: int) -> int:
        """The smallest side of a tile, in pixels, of which a picture of this size has no more tiles; the overlap is that of this cut."""
        sides = range(MIN_SIDE, max(MIN_SIDE, *size) + 1)
        return sides[bisect_left(sides, True, key=lambda side: Tiles(side, self.overlap).num_tiles(size) <= max_tiles)]

    def _num_spans(self, axis: int, length: int) -> int:
        """How many tiles there are along one axis of so many pixels."""
        if self.grid is not None:
            return max(1, min(self.grid[axis], length // MIN_SIDE))
        side = min(int(self.cut), length)
        return 1 + -(-(length - side) // max(1, int(side * (1 - self.overlap))))

    def _spans(self, count: int, length: int) -> list[tuple[int, int]]:
        """The first pixel of each of the tiles along one axis, and the one behind its last."""
        side = min(int(self.cut), length) if self.grid is None else ceil(length / (count - (count - 1) * self.overlap))
        starts = [0] if count == 1 else [round(index * (length - side) / (count - 1)) for index in range(count)]
        return [(start, start + side) for start in starts]

    def _too_many(self, size: tuple[int, int], columns: int, rows: int) -> InvalidImage:
        width, height = size
        return InvalidImage(
            f"tiles of {self.cut} pixels would be {columns} x {rows} in this picture of {width} x {height}, and at most {MAX_TILES} are "
            f"asked about: give a side of {self.smallest_side(size, MAX_TILES)} or more, or a grid such as "
            '"8x8", or scale the picture down',
            field="tiles",
        )


def as_tiles(tiles: Tiles | str | int) -> Tiles:
    """What a caller gives as tiles, checked; arguments and errors as of ``Tiles``."""
    return tiles if isinstance(tiles, Tiles) else Tiles(tiles)


def read_tiles(tiles: str | int | None, overlap: float | None = None, tiles_only: bool = False) -> Tiles | None:
    """The tiles that the fields of a request or the options of a command ask for; None where they ask for none.

    Args:
        tiles: as ``Tiles.cut``; None for none.
        overlap: as ``Tiles.overlap``; None for the default.
        tiles_only: the whole picture is not asked about.

    Raises:
        InvalidOption: as ``Tiles``; or the others are given without ``tiles``.
    """
    if tiles is not None:
        return Tiles(tiles, DEFAULT_OVERLAP if overlap is None else overlap, includes_whole=not tiles_only)
    for name, is_given in (("tile_overlap", overlap is not None), ("tiles_only", tiles_only)):
        if is_given:
            raise InvalidOption(f'{name} goes with tiles: give tiles, too (such as "2x2"), or leave {name} out', field=name)
    return None


def _checked_cut(cut: object) -> str:
    """The grid or side as text, checked."""
    if isinstance(cut, numbers.Integral) and not isinstance(cut, bool) and 0 <= int(cut) < _MOST_SIDE:
        cut = str(int(cut))
    if not isinstance(cut, str):
        raise InvalidOption(f"tiles must be {_FORMS}; got {_shown(cut)}", field="tiles")
    if (grid := _GRID.fullmatch(cut)) is not None:
        columns, rows = int(grid[1]), int(grid[2])
        if not (columns and rows):
            raise InvalidOption(f"a grid of tiles has at least one column and one row; got {_shown(cut)}", field="tiles")
        if columns * rows > MAX_TILES:
            hint = f"; for tiles of {max(columns, rows)} pixels write {max(columns, rows)}" if min(columns, rows) >= MIN_SIDE else ""
            raise InvalidOption(f"a grid has at most {MAX_TILES} tiles; {_shown(cut)} are {columns * rows}{hint}", field="tiles")
        return f"{columns}x{rows}"
    side = _SIDE.fullmatch(cut)
    if side is None or not MIN_SIDE <= int(side[1]) < _MOST_SIDE:
        raise InvalidOption(f"tiles must be {_FORMS}; got {_shown(cut)}", field="tiles")
    return str(int(side[1]))


def _checked_overlap(overlap: object) -> float:
    is_number = isinstance(overlap, numbers.Real) and not isinstance(overlap, bool)
    if not is_number or not 0 <= overlap <= MAX_OVERLAP:  # type: ignore[operator]  # "not" refuses NaN too
        raise InvalidOption(
            f"tile_overlap must be a share of a tile's side from 0 to {MAX_OVERLAP}, such as {DEFAULT_OVERLAP}; got {_shown(overlap)}",
            field="tile_overlap",
        )
    return float(overlap)  # type: ignore[arg-type]


def _shown(value: object) -> str:
    try:
        shown = repr(value)
    except ValueError:  # an integer of thousands of digits
        return "a number out of range"
    return shown if len(shown) <= 80 else shown[:77] + "..."
