"""Images by URL on the command line: fetched by the client's safe fetcher, within the switches of the environment that the client knows.

In: a URL. Out: what its text has against it, bytes, or a text of it without keys for people and logs. Knows nothing of images.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from florence2.errors import InvalidImage

if TYPE_CHECKING:
    from florence2.url_policy import FetchPolicy

FETCH_TIMEOUT_S = 60.0
LONGEST_SHOWN = 100
_WEB = re.compile(r"https?:", re.IGNORECASE)
_PARTS = re.compile(r"([a-z][a-z0-9+.-]*:)/*([^/?#]*)([^?#]*)", re.IGNORECASE)
_HOST = re.compile(r"([\w.-]+|\[[0-9a-f:.]+\])(:\d*)?", re.IGNORECASE)


def is_url(word: str) -> bool:
    """Whether a word names a picture on the web."""
    return _WEB.match(word) is not None


def host_and_path(url: str) -> tuple[str, str]:
    """Host and path of a URL, as they are written there; the host without a user's name and password."""
    _, host, path = _parts(url)
    return host, path


def without_keys(url: str) -> str:
    """A URL without password, query and fragment, each of which may be a key."""
    start, host, path = _parts(url)
    text = f"{start}//{host}{path}" if _HOST.fullmatch(host) else f"{start}//…"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def complaint(url: str) -> str | None:
    """What is against fetching a URL, told by its text; None if nothing.

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


def _parts(url: str) -> tuple[str, str, str]:
    found = _PARTS.match(url.strip())
    return (found[1], found[2].rpartition("@")[2], found[3]) if found else ("", "", "")


def _policy() -> FetchPolicy:
    """What may be fetched: what the client may."""
    from florence2.client import urls
    from florence2.client.configuration import InferenceConfiguration

    return replace(urls.policy(InferenceConfiguration()), timeout_s=FETCH_TIMEOUT_S)
