"""From the ``image`` of a call to a picture: a local file, an https URL or a data URI, within bounds.

In: a text. Out: a Pillow image in RGB, upright, or ``InvalidImage`` with what came and what to do. URLs go through the server's fetcher,
which reaches public hosts alone. Knows nothing of prompts and engines.
"""

from __future__ import annotations

import asyncio
import os
from functools import partial
from typing import TYPE_CHECKING

from florence2.background import in_thread
from florence2.errors import InvalidImage
from florence2.image_files.base64_text import decode_base64, without_prefix
from florence2.images import read_bytes
from florence2.images.kinds import kind_of_text
from florence2.images.messages import invalid, shown
from florence2.mcp.folders import Folders
from florence2.url_fetch import Fetcher
from florence2.url_policy import FetchError, FetchPolicy
from florence2.url_text import without_keys
from florence2.version import __version__

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_BYTES = 20 * 2**20
FETCH_S = 20.0
MAX_BASE64_CHARS = MAX_BYTES * 4 // 3 + 1024
_NUM_READERS = max(2, min(4, os.cpu_count() or 1))
_INLINE = ("data_uri", "base64")


class Pictures:
    """Reads the pictures of calls, a few at a time.

    Args:
        folders: what local files may be read.
        allow_urls: pictures may be fetched by URL.
        policy: what may be fetched; None for https and public hosts.
    """

    def __init__(self, folders: Folders, *, allow_urls: bool = True, policy: FetchPolicy | None = None) -> None:
        self.folders = folders
        self.policy = policy or FetchPolicy(allow_urls=allow_urls, max_bytes=MAX_BYTES, timeout_s=FETCH_S)
        self._fetcher = Fetcher(self.policy, f"florence2-mcp/{__version__}")
        self._room = asyncio.Semaphore(_NUM_READERS)

    def check(self, text: str) -> None:
        """Refuse what can't be a picture as far as that is seen without reading or fetching it.

        Raises:
            InvalidImage: it may not be read or fetched, or is no image.
        """
        if not text.strip():
            raise invalid("image is empty: give the path of an image file, an https:// URL or a data: URI")
        if len(text) > MAX_BASE64_CHARS:
            raise invalid(f"image holds more than {MAX_BYTES} bytes; give a smaller one, a path or a URL")
        kind = kind_of_text(text)
        if kind == "url":
            try:
                self.policy.checked(text)
            except FetchError as error:
                raise _not_fetched(text, error) from None
        elif kind not in _INLINE:
            self.folders.find(text)

    async def read(self, text: str) -> Image:
        """The picture that a text names or holds.

        Raises:
            InvalidImage: there is none, for whatever reason.
            OutOfMemory: there is not enough memory to decode it.
        """
        async with self._room:
            kind = kind_of_text(text)
            if kind == "url":
                data = await self._fetched(text)
                work = partial(read_bytes, data, without_keys(text))
            elif kind in _INLINE:
                work = partial(_inline, text)
            else:
                work = partial(_local, self.folders, text)
            return await in_thread("florence2-mcp-image", work)

    async def close(self) -> None:
        """Close all connections."""
        await self._fetcher.close()

    async def _fetched(self, url: str) -> bytes:
        """What a URL holds."""
        try:
            return await self._fetcher.fetch(url)
        except FetchError as error:
            raise _not_fetched(url, error) from None


def _local(folders: Folders, text: str) -> Image:
    """The picture in a local file."""
    return read_bytes(folders.read(text, MAX_BYTES), shown(text))


def _inline(text: str) -> Image:
    """The picture in a data URI, or in base64 without its beginning."""
    try:
        data = decode_base64(without_prefix(text.strip()))
    except ValueError:
        raise invalid("what stands behind the comma of the data URI is no base64; give data:image/png;base64,…") from None
    return read_bytes(data, "the bytes of the data URI")


def _not_fetched(url: str, error: FetchError) -> InvalidImage:
    return invalid(f"{without_keys(url)} can't be fetched: {error.reason}")
