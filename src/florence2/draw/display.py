"""Shows a drawn answer: in a notebook, in a window, or as a file whose path is printed.

In: a result that has its picture. Out: HTML with a small preview beside the answer, of limited size in bytes; or a picture on the
screen. Texts are escaped. In a notebook, a picture that can't be read is left out, and no error is raised.
"""

from __future__ import annotations

import base64
import html
import io
import os
import sys
import tempfile
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageShow

from florence2.draw.drawing import draw_on
from florence2.draw.fonts import Fonts
from florence2.draw.marks import words_of
from florence2.errors import Florence2Error
from florence2.sources import picture_for

if TYPE_CHECKING:
    from florence2.results import FoundObject, Result

MAX_SIDE = 800  # pixels of a preview
MAX_SHOWN_SIDE = 1600  # pixels of a picture that is shown alone in a notebook, which keeps it
MAX_ROWS = 50
MAX_CHARS = 4000
MAX_CELL_CHARS = 300
PNG_UP_TO = 150_000  # bytes: drawings and screenshots stay PNG, photos become JPEG
JPEG_QUALITY = 85
_CELL = "padding:2px 10px 2px 0;text-align:left;vertical-align:top"


def mimebundle(result: Result) -> dict[str, str]:
    """The MIME bundle of a result for notebooks: the picture beside the answer, or the answer alone without a readable picture."""
    plain = {"text/plain": repr(result)}
    try:
        preview = _preview(result)
    except (Florence2Error, OSError, MemoryError):
        return plain
    words = f'<div style="flex:1 1 14em;min-width:14em;overflow-x:auto">{_words(result)}</div>'
    shown = f'<div style="flex:0 1 auto"><img alt="{_escaped(repr(result))}" style="max-width:100%" src="{preview}"></div>'
    return {**plain, "text/html": f'<div style="display:flex;flex-wrap:wrap;gap:1em;align-items:flex-start">{shown}{words}</div>'}


def show(picture: Image.Image) -> None:
    """Show a picture in the notebook or in the system's viewer, or else write it to a file and print the path."""
    if (display := _notebook_display()) is not None:
        kind, data = _encoded(_scaled_down(picture, MAX_SHOWN_SIDE))
        display({"text/plain": f"{picture.width} x {picture.height} pixels", f"image/{kind}": data}, raw=True)
    elif not (_has_screen() and ImageShow.show(picture, "florence2")):
        file, path = tempfile.mkstemp(prefix="florence2-", suffix=".png")
        with os.fdopen(file, "wb") as stream:
            picture.save(stream, "PNG")
        print(f"there is no screen to show it on; drawn: {path}")


def _preview(result: Result) -> str:
    """The drawn picture as a data URI."""
    picture = _scaled_down(picture_for(result.image_size, None, result.source), MAX_SIDE)
    kind, data = _encoded(draw_on(picture, result, Fonts(), with_strip=False))
    return f"data:image/{kind};base64,{data}"


def _scaled_down(picture: Image.Image, max_side: int) -> Image.Image:
    """The picture itself, or a smaller copy where a side is longer."""
    if max(picture.size) <= max_side:
        return picture
    smaller = picture.copy()
    smaller.thumbnail((max_side, max_side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return smaller


def _encoded(picture: Image.Image) -> tuple[str, str]:
    """The format of a picture's file, and the file in Base64: PNG where that is small, else JPEG."""
    kind, buffer = "png", io.BytesIO()
    picture.save(buffer, kind, optimize=True)
    if buffer.tell() > PNG_UP_TO:
        kind, buffer = "jpeg", io.BytesIO()
        picture.save(buffer, kind, quality=JPEG_QUALITY)
    return kind, base64.b64encode(buffer.getvalue()).decode()


def _words(result: Result) -> str:
    """The answer as HTML: its text, or a table of its objects."""
    title = f"<b>{_escaped(result.task)}</b> · {result.image_size[0]} x {result.image_size[1]}"
    cut = " · cut at the token limit" if result.finish_reason == "length" else ""
    text = f'<p style="white-space:pre-wrap;margin:0.4em 0">{_escaped(words_of(result))}</p>'
    return f"<div>{title}{cut}</div>{text if result.kind == 'text' else _table(result)}"


def _table(result: Result) -> str:
    """The objects as an HTML table, one per row."""
    objects = result.objects
    if not objects:
        return "<p>nothing found</p>"
    rows = ["".join(f'<td style="{_CELL}">{_escaped(cell, MAX_CELL_CHARS)}</td>' for cell in _cells(found)) for found in objects[:MAX_ROWS]]
    more = f"<p>… and {len(objects) - MAX_ROWS} more</p>" if len(objects) > MAX_ROWS else ""
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>{more}"


def _cells(found: FoundObject) -> list[str]:
    score = [] if found.score is None else [f"{found.score:.2f}"]
    if found.kind == "polygons":
        where = f"{sum(len(polygon) // 2 for polygon in found.polygons)} points"
    else:
        where = ", ".join(f"{value:g}" for value in found.quad or found.box)
    return [found.label or "-", *score, where]


def _escaped(text: str, max_chars: int = MAX_CHARS) -> str:
    """A text escaped for HTML, of limited length, and without lone surrogates, which notebooks can't store."""
    whole = text.encode("utf-8", "replace").decode()
    return html.escape(whole if len(whole) <= max_chars else whole[:max_chars] + "…")


def _notebook_display() -> Any:
    """IPython's display function in a notebook; None elsewhere."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is None or not hasattr(shell, "kernel"):
        return None
    from IPython.display import display  # pyright: ignore[reportMissingImports]

    return display


def _has_screen() -> bool:
    return sys.platform in ("win32", "darwin") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
