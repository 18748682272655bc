"""URLs as messages and logs show them: without what may be a key.

In: a URL as somebody wrote it. Out: its parts, or a text of bounded length. Knows nothing of what may be fetched.
"""

from __future__ import annotations

import re

MAX_SHOWN_CHARS = 100
_PARTS = re.compile(r"([a-z][a-z0-9+.-]*:)/*([^/?#]*)([^?#]*)", re.IGNORECASE)
_HOST = re.compile(r"([\w.-]+|\[[0-9a-f:.]+\])(:\d*)?", re.IGNORECASE)


def host_and_path(url: str) -> tuple[str, str]:
    """Host and path of a URL, as they are written there; the host without a user's name and password."""
    _, host, path = _parts(url)
    return host, path


def without_keys(url: str) -> str:
    """A URL without password, query and fragment, each of which may be a key."""
    scheme, host, path = _parts(url)
    text = f"{scheme}//{host}{path}" if _HOST.fullmatch(host) else f"{scheme}//…"
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}…"


def _parts(url: str) -> tuple[str, str, str]:
    """Scheme, host and path; all empty where it is no URL."""
    found = _PARTS.match(url.strip())
    return (found[1], found[2].rpartition("@")[2], found[3]) if found else ("", "", "")
