"""Images by URL, for the server's clients: its settings as a policy, and refusals in the words that clients know.

In: a URL. Out: bytes. What may be fetched and how is decided in ``florence2.url_policy`` and ``florence2.url_fetch``.
"""

from __future__ import annotations

from florence2 import url_fetch
from florence2.errors import InvalidImage
from florence2.server.errors import ImageTooLarge
from florence2.server.settings import Settings
from florence2.url_policy import FetchError, FetchPolicy, Rule, hosts
from florence2.version import __version__

CAUSE = "Could not load input image. Cause: "
NOT_DECODED = "Data pointed by URL could not be decoded into image."
_CONFIGURED = "in this configuration of `inference`."
_INVALID = "Provided image URL is invalid."
# The words that known clients look for; what is not here is said after ``NOT_DECODED``.
_WORDS: dict[Rule, str] = {
    "off": f"Providing images via URL is not supported {_CONFIGURED}",
    "scheme": f"Providing images via non https:// URL is not supported {_CONFIGURED}",
    "domain": f"Providing images via URL without FQDN is not supported {_CONFIGURED}",
    "allow_list": "It is not allowed to reach image URL - prohibited by whitelisted destinations.",
    "deny_list": "It is not allowed to reach image URL - prohibited by blacklisted destinations.",
    "address": "URL points to a network destination that is not allowed.",
}


def refusal(cause: str) -> InvalidImage:
    """The error that clients know for an image that can't be had."""
    return InvalidImage(CAUSE + cause, field="image")


class Fetcher:
    """Fetches by URL within what the settings allow."""

    def __init__(self, settings: Settings) -> None:
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
        self._fetcher = url_fetch.Fetcher(policy, f"florence2/{__version__}")

    async def fetch(self, url: object) -> bytes:
        """What a URL holds.

        Raises:
            InvalidImage: the URL is malformed or not allowed, or there is nothing to be had from it.
            ImageTooLarge: more bytes than are taken.
        """
        try:
            return await self._fetcher.fetch(url)
        except FetchError as error:
            raise _refused(error) from None

    async def close(self) -> None:
        """Close what is open."""
        await self._fetcher.close()


def _refused(error: FetchError) -> InvalidImage:
    """The refusal in the words that clients know."""
    if error.rule == "too_large":
        return ImageTooLarge(f"{CAUSE}{error.reason}; send a smaller image.", field="image")
    if error.rule in _WORDS:
        return refusal(_WORDS[error.rule])
    if error.rule in ("invalid", "credentials"):
        return refusal(f"{_INVALID} {error.reason}")
    return refusal(f"{'Data is not image.' if error.rule == 'not_image' else NOT_DECODED} {error.reason}")
