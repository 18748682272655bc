"""Pictures that the page's reader gives a link to, fetched by the server, so that the page itself loads nothing from elsewhere.

In: an address. Out: the bytes as they were found and the type that they really have, or an error. What may be fetched is the settings'
business, as for the images of all other requests.
"""

from __future__ import annotations

import asyncio

from florence2.errors import InvalidImage
from florence2.image_files import describe, inspect
from florence2.server.errors import NotOffered, with_field
from florence2.server.http.url_fetch import fetch_image
from florence2.server.inference.decoding import check_pixels
from florence2.server.settings import Settings
from florence2.url_fetch import Fetcher


async def linked_image(url: str, fetcher: Fetcher, settings: Settings) -> tuple[bytes, str]:
    """The picture at an address, and its media type.

    Args:
        url: the address.
        fetcher: fetches what the settings allow.
        settings: the server's.

    Raises:
        NotOffered: this server fetches nothing.
        InvalidImage: the address is malformed or not allowed, or there is no picture at it that can be read.
        ImageTooLarge: more bytes or pixels than are taken.
    """
    if not settings.allow_urls:
        raise NotOffered("this server fetches no pictures (setting allow_urls): save the picture and choose the file")
    try:
        data = await fetch_image(url, fetcher)
        return data, await asyncio.to_thread(_media_type, data, settings.max_image_pixels)
    except InvalidImage as error:
        raise with_field(error, "url") from None


def _media_type(data: bytes, max_pixels: int) -> str:
    """The type of a picture that this server reads.

    Raises:
        InvalidImage: it reads no such thing.
        ImageTooLarge: more than ``max_pixels``.
    """
    structure = inspect(data)
    if structure is None:
        raise InvalidImage(f"there is no picture at this address: {describe(data)}")
    if structure.size is not None:
        check_pixels(structure.size, max_pixels)
    return f"image/{structure.format.lower()}"
