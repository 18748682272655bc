"""The picture of a question: a data URI, or a URL that the safe fetcher fetches.

``UrlImage`` is an image of a request for the inference service. Knows nothing of messages and prompts.
"""

from __future__ import annotations

from florence2.errors import InvalidImage, InvalidRequest
from florence2.image_files import Structure, base64_text, describe, inspect
from florence2.images.messages import invalid
from florence2.server.errors import with_field
from florence2.server.http.url_fetch import fetch_image
from florence2.url_fetch import Fetcher


class UrlImage:
    """One picture; an ``ImageSource``.

    Args:
        url: a data URI or an https URL.
        field: where the request holds it.
        fetcher: fetches URLs.
    """

    def __init__(self, url: str, field: str, fetcher: Fetcher) -> None:
        self._url = url
        self._field = field
        self._fetcher = fetcher
        self._is_data = url[:8].lstrip().lower().startswith("data:")
        self.label = "base64" if self._is_data else "url"

    async def fetch(self) -> object:
        """The data URI, or what the URL holds.

        Raises:
            InvalidImage: there is nothing to be had by it.
        """
        if self._is_data:
            url, self._url = self._url, ""  # whoever asks holds it from here on
            return url
        if "://" not in self._url[:64]:
            got = "a path, bare base64 or other text" if self._url.strip() else "an empty text"
            raise invalid(f"the picture's url must be a data URI (data:image/png;base64,…) or begin with https://, got {got}")
        return await fetch_image(self._url, self._fetcher)

    def read(self, fetched: object) -> Structure:
        """The image file, given what ``fetch`` returned.

        Raises:
            InvalidImage: it is none that is read here.
        """
        data = fetched if isinstance(fetched, bytes) else _decode(str(fetched))
        if not data:
            raise invalid("the picture is empty")
        structure = inspect(data)
        if structure is None:
            raise invalid(f"the picture can't be read: {describe(data)}")
        return structure

    def describe(self, error: InvalidRequest) -> InvalidRequest:
        """An error about this picture, naming the part that holds it."""
        return with_field(error, self._field) if isinstance(error, InvalidImage) and error.field != "tiles" else error


def _decode(uri: str) -> bytes:
    """The bytes in a data URI."""
    if not base64_text.is_data_uri(uri):
        raise invalid("a data URI is data:image/png;base64, and the picture's bytes in base64 behind the comma; there is no comma")
    try:
        return base64_text.decode_base64(base64_text.without_prefix(uri))
    except ValueError:
        raise invalid("what stands behind the comma of the data URI is no base64; encode the bytes of the image file") from None
