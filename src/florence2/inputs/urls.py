"""Images by URL on the command line: fetched by the client's safe fetcher, within the switches of the environment that the client knows.

In: a URL. Out: what is against fetching it, or its bytes. Knows nothing of images.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from florence2.errors import InvalidImage
from florence2.url_text import without_keys

if TYPE_CHECKING:
    from florence2.url_policy import FetchPolicy

FETCH_TIMEOUT_S = 60.0
_WEB = re.compile(r"https?:", re.IGNORECASE)


def is_url(word: str) -> bool:
    """Whether a word names a picture on the web."""
    return _WEB.match(word) is not None


def complaint(url: str) -> str | None:
    """Why a URL may not be fetched, as far as its text shows; None if it may.

    Raises:
        InvalidOption: a switch of the environment that is none.
    """
    from florence2.url_policy import FetchError

    try:
        _policy().checked(url)
    except FetchError as error:
        return error.reason
    return None


def fetch(url: str) -> bytes:
    """What a URL holds.

    Raises:
        InvalidImage: it may not be fetched, or there is nothing to be had.
        InvalidOption: a switch of the environment that is none.
    """
    from florence2.client.wire import USER_AGENT
    from florence2.url_fetch import fetch_blocking
    from florence2.url_policy import FetchError

    try:
        return fetch_blocking(_policy(), USER_AGENT, url)
    except FetchError as error:
        raise InvalidImage(f"{without_keys(url)} can't be fetched: {error.reason}", field="image") from None


def _policy() -> FetchPolicy:
    """What may be fetched: what the client may."""
    from florence2.client import urls
    from florence2.client.configuration import InferenceConfiguration

    return replace(urls.policy(InferenceConfiguration()), timeout_s=FETCH_TIMEOUT_S)
