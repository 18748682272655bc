"""The process that renders the pages of one PDF document: ``python -m florence2.inputs.page_renderer SECONDS LENGTH [PATH]``.

In: the path of a document, or its content of that length on standard input; then numbers of pages, one a line. Out: a line of JSON,
``{"num_pages": 3}``, then one for each page, ``{"size": [width, height]}`` with the pixels in RGB behind it, or ``{"error": "…"}``. A page
that takes more processor time than that many seconds ends the process, as PDFium can't be stopped otherwise: small files can hold a page
that takes for ever. Loads PDFium and Pillow alone.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from math import sqrt
from typing import IO, Any

from PIL import Image

from florence2.process_limits import limit_memory, limit_time

DOTS_PER_POINT = 200 / 72
MIN_LONGER_SIDE = 1000
MAX_PAGE_PIXELS = 2**25
MAX_MEMORY_BYTES = 4 * 2**30


def main() -> None:
    """Render pages until the input ends."""
    import pypdfium2

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who reads the pages
    max_seconds, length = float(sys.argv[1]), int(sys.argv[2])
    limit_memory(MAX_MEMORY_BYTES)
    # A library that prints must not write between the pixels.
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    limit_time(max_seconds)  # also where nobody waits for it any more
    try:
        document = pypdfium2.PdfDocument(sys.stdin.buffer.read(length) if length else sys.argv[3])
        _send(output, {"num_pages": len(document)})
    except pypdfium2.PdfiumError as error:
        _send(output, {"error": _reason(error)})
        return
    for line in sys.stdin.buffer:
        limit_time(max_seconds)
        try:
            picture = _rendered(document, int(line))
        except Exception as error:  # whatever a damaged page led it to
            _send(output, {"error": str(error)})
        else:
            _send(output, {"size": picture.size}, picture.tobytes())


def scale_of(width: float, height: float) -> float:
    """How many pixels a point of a page gets."""
    scale = max(DOTS_PER_POINT, MIN_LONGER_SIDE / max(width, height))
    # Sides are rounded up to whole pixels, at least one.
    largest = min(sqrt(MAX_PAGE_PIXELS / (width * height)), MAX_PAGE_PIXELS / max(width, height))
    return min(scale, largest * 0.999)


def _rendered(document: Any, number: int) -> Image.Image:
    """A page in RGB; ``number`` counts from 1.

    Raises:
        ValueError: it is damaged, or has no size.
    """
    import pypdfium2

    try:
        page = document[number - 1]
    except pypdfium2.PdfiumError as error:
        raise ValueError(f"page {number} is damaged ({error})") from error
    try:
        width, height = page.get_size()
        if not (0 < width < 1e7 and 0 < height < 1e7):
            raise ValueError(f"page {number} has no size that can be: {width:g} x {height:g} points")
        return page.render(scale=scale_of(width, height)).to_pil().convert("RGB")
    except (pypdfium2.PdfiumError, RuntimeError, MemoryError) as error:
        raise ValueError(f"page {number} can't be rendered ({error})") from error
    finally:
        page.close()


def _send(output: IO[bytes], fields: dict[str, Any], pixels: bytes = b"") -> None:
    output.write(json.dumps(fields).encode() + b"\n" + pixels)
    output.flush()


def _reason(error: Exception) -> str:
    """Why a document can't be opened."""
    text = str(error)
    if "assword" in text:
        return "it is encrypted; save it without a password"
    return f"the document is damaged, or no PDF ({text.removeprefix('Failed to load document ').strip('().')})"


if __name__ == "__main__":
    main()
