"""The pages of PDF documents as pictures, rendered by PDFium in a process of its own (``page_renderer``).

In: a document. Out: its pages in RGB, each rendered when it is its turn. Pages are rendered at 200 dots an inch, small ones larger and
large ones smaller, so that their pixels are bounded whatever size the document claims. A page that takes too long, or that PDFium crashes
on, costs itself alone: the process is ended, and another one renders the pages behind it. Knows nothing of names.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from florence2.extras import requires

if TYPE_CHECKING:
    from PIL import Image

PAGE_TIMEOUT_S = 60.0
"""How long opening a document, and each of its pages, may take."""
_MAX_LOST = 3


class BrokenDocument(Exception):
    """A document or page that can't be rendered; its text says why."""


class Document:
    """An open document.

    Args:
        source: the file, or its content.

    Attributes:
        num_pages: how many pages it says that it has.

    Raises:
        BrokenDocument: it is encrypted or damaged.
        MissingExtra: pypdfium2 is not installed.
    """

    def __init__(self, source: Path | bytes) -> None:
        with requires("pdf", "a PDF document"):
            if find_spec("pypdfium2") is None:
                raise ModuleNotFoundError(name="pypdfium2")
        self._source = source
        self._num_lost = 0
        self._process, self.num_pages = self._opened()

    def page(self, number: int) -> Image.Image:
        """A page in RGB.

        Args:
            number: which, from 1.

        Raises:
            BrokenDocument: it is damaged, has no size, or takes too long.
        """
        from PIL import Image

        if self._process.poll() is not None:
            if self._num_lost >= _MAX_LOST:
                raise BrokenDocument(f"page {number} is not tried, as {_MAX_LOST} pages before it could not be rendered")
            self._process, self.num_pages = self._opened()
        fields, pixels = self._answer(f"{number}\n".encode(), f"page {number}")
        return Image.frombytes("RGB", tuple(fields["size"]), pixels)

    def close(self) -> None:
        """Free the document."""
        _end(self._process)

    def _opened(self) -> tuple[subprocess.Popen[bytes], int]:
        """A process that has the document open, and how many pages there are."""
        content = self._source if isinstance(self._source, bytes) else b""
        path = [] if content else [str(self._source)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "florence2.inputs.page_renderer", str(PAGE_TIMEOUT_S), str(len(content)), *path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            fields, _ = self._answer(content, "the document")
        except BaseException:
            _end(self._process)
            raise
        return self._process, fields["num_pages"]

    def _answer(self, question: bytes, what: str) -> tuple[dict[str, Any], bytes]:
        """What the process says to a question, and the pixels behind that.

        Raises:
            BrokenDocument: it can't be, or the process has ended.
        """
        is_late = threading.Event()

        def end() -> None:
            is_late.set()
            self._process.kill()

        timer = threading.Timer(PAGE_TIMEOUT_S, end)
        timer.daemon = True
        timer.start()
        try:
            fields, pixels = _exchanged(self._process, question)
        except (OSError, EOFError) as error:
            _end(self._process)
            self._num_lost += 1
            # A crash and the end of its processor time look alike from here.
            why = f"takes longer than {PAGE_TIMEOUT_S:g} s" if is_late.is_set() else "takes too long, too much memory, or breaks PDFium"
            raise BrokenDocument(f"{what} {why}") from error
        finally:
            timer.cancel()
        if "error" in fields:
            raise BrokenDocument(fields["error"])
        return fields, pixels


def _exchanged(process: subprocess.Popen[bytes], question: bytes) -> tuple[dict[str, Any], bytes]:
    """The answer to a question, a line of JSON, and the pixels that it announces.

    Raises:
        EOFError, OSError: the process has ended.
    """
    stdin, stdout = _pipe(process.stdin), _pipe(process.stdout)
    stdin.write(question)
    stdin.flush()
    line = stdout.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    fields = json.loads(line)
    width, height = fields.get("size", (0, 0))
    pixels = stdout.read(3 * width * height)
    if len(pixels) != 3 * width * height:
        raise EOFError
    return fields, pixels


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None  # both are pipes
    return stream


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process, and free what it has."""
    process.kill()
    for stream in (process.stdin, process.stdout):
        with suppress(OSError):
            _pipe(stream).close()
    process.wait()


@contextmanager
def opened(source: Path | bytes) -> Iterator[Document]:
    """A document that is closed behind the block."""
    document = Document(source)
    try:
        yield document
    finally:
        document.close()
