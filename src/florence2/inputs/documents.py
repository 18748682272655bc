"""The pages of PDF documents as pictures, rendered by PDFium.

In: a document. Out: its pages in RGB, each rendered when it is its turn. Pages are rendered at 200 dots an inch, small ones larger and
large ones smaller, so that their pixels are bounded whatever size the document claims. PDFium is not made for threads: it is called by one
at a time. Knows nothing of names.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from florence2.extras import requires

if TYPE_CHECKING:
    from PIL import Image

DOTS_PER_POINT = 200 / 72
MIN_LONGER_SIDE = 1000
MAX_PAGE_PIXELS = 2**25
_PDFIUM = threading.RLock()  # of one thread: what the interpreter frees while it runs may close a document, too


class BrokenDocument(Exception):
    """A document or page that can't be rendered; its text says why."""


class Document:
    """An open document.

    Args:
        source: the file, or its content.

    Raises:
        BrokenDocument: it is encrypted or damaged.
        MissingExtra: pypdfium2 is not installed.
    """

    def __init__(self, source: Path | bytes) -> None:
        with requires("pdf", "a PDF document"):
            import pypdfium2
        with _PDFIUM:
            try:
                self._document: Any = pypdfium2.PdfDocument(source)
                self.num_pages = len(self._document)
            except pypdfium2.PdfiumError as error:
                raise BrokenDocument(_reason(error)) from error

    def page(self, number: int) -> Image.Image:
        """A page in RGB.

        Args:
            number: which, from 1.

        Raises:
            BrokenDocument: it is damaged, or has no size.
        """
        import pypdfium2

        with _PDFIUM:
            try:
                page = self._document[number - 1]
            except pypdfium2.PdfiumError as error:
                raise BrokenDocument(f"page {number} is damaged ({error})") from error
            try:
                width, height = page.get_size()
                if not (0 < width < 1e7 and 0 < height < 1e7):
                    raise BrokenDocument(f"page {number} has no size that can be: {width:g} x {height:g} points")
                bitmap = page.render(scale=scale_of(width, height))
                return bitmap.to_pil().convert("RGB")
            except BrokenDocument:
                raise
            except Exception as error:  # whatever a damaged page led it to
                raise BrokenDocument(f"page {number} can't be rendered ({error})") from error
            finally:
                page.close()

    def close(self) -> None:
        """Free the document."""
        with _PDFIUM:
            self._document.close()


def scale_of(width: float, height: float) -> float:
    """How many pixels a point of a page gets."""
    scale = max(DOTS_PER_POINT, MIN_LONGER_SIDE / max(width, height))
    # Sides are rounded up to whole pixels, at least one.
    largest = min(sqrt(MAX_PAGE_PIXELS / (width * height)), MAX_PAGE_PIXELS / max(width, height))
    return min(scale, largest * 0.999)


@contextmanager
def opened(source: Path | bytes) -> Iterator[Document]:
    """A document that is closed behind the block."""
    document = Document(source)
    try:
        yield document
    finally:
        document.close()


def _reason(error: Exception) -> str:
    """Why a document can't be opened."""
    text = str(error)
    if "assword" in text:
        return "it is encrypted; save it without a password"
    return f"the document is damaged, or no PDF ({text.removeprefix('Failed to load document ').strip('().')})"
