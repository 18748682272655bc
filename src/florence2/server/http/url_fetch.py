"""Images by URL within what the server's settings allow.

What may be fetched and how is decided in ``florence2.url_policy`` and ``florence2.url_fetch``; each API words the refusals.
"""

from __future__ import annotations

from florence2.errors import InvalidImage
from florence2.server.errors import ImageTooLarge
from florence2.server.settings import Settings
from florence2.url_fetch import Fetcher
from florence2.url_policy import FetchError, FetchPolicy, hosts
from florence2.version import __version__


def make_fetcher(settings: Settings) -> Fetcher:
    """What fetches for the server's clients."""
    # No proxies: behind them, the address connected to would not be the one checked.
    policy = FetchPolicy(
        allow_urls=settings.allow_urls,
        allow_http=settings.allow_http_urls,
        allow_without_domain=settings.allow_urls_without_domain,
        allow_private=settings.allow_private_urls,
        allow_list=hosts(settings.url_allow_list) or None,
        deny_list=hosts(settings.url_deny_list),
        max_redirects=settings.max_url_redirects,
        max_bytes=settings.max_body_bytes,
        timeout_s=settings.url_timeout_s,
    )
    return Fetcher(policy, f"florence2/{__version__}")


async def fetch_image(url: str, fetcher: Fetcher) -> bytes:
    """What a client's URL leads to, for APIs without refusals of their own wording.

    Raises:
        InvalidImage: the URL is malformed or not allowed, or there is nothing at it.
        ImageTooLarge: more bytes than are taken.
    """
    try:
        return await fetcher.fetch(url)
    except FetchError as error:
        kind = ImageTooLarge if error.rule == "too_large" else InvalidImage
        raise kind(f"the image can't be had by its URL: {error.reason[:1].lower()}{error.reason[1:]}", field="image") from None
