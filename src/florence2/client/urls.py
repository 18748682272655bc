"""Images by URL, fetched by the client: the known client's switches of the environment as a policy, and what may go wrong.

In: a URL and a configuration. Out: a policy for ``florence2.url_fetch``, or this client's error for one of a fetch. The switches are read
at each call, with the known client's defaults. Knows nothing of connections.
"""

from __future__ import annotations

import os

from florence2.client.configuration import InferenceConfiguration
from florence2.client.errors import (
    CallError,
    InferenceError,
    InvalidInput,
    InvalidParameter,
    InvalidURLImageInput,
    URLAddressNotAllowedError,
)
from florence2.url_policy import FetchError, FetchPolicy, Rule, hosts
from florence2.url_text import without_keys

MAX_FETCHED_BYTES = 64 * 2**20
MAX_REDIRECTS = 30
_REFUSED_BY = {
    "off": "ALLOW_URL_INPUT",
    "scheme": "ALLOW_NON_HTTPS_URL_INPUT",
    "domain": "ALLOW_URL_INPUT_WITHOUT_FQDN",
    "allow_list": "WHITELISTED_DESTINATIONS_FOR_URL_INPUT",
    "deny_list": "BLACKLISTED_DESTINATIONS_FOR_URL_INPUT",
    "address": "ALLOW_URL_TO_NON_GLOBAL_ADDRESSES",
}
_NOT_ALLOWED: frozenset[Rule] = frozenset({"off", "invalid", "scheme", "credentials", "domain", "allow_list", "deny_list"})


def policy(configuration: InferenceConfiguration) -> FetchPolicy:
    """What may be fetched now.

    Raises:
        InvalidParameter: a switch of the environment is neither true nor false, or no number.
    """
    allowed, denied = (os.environ.get(f"{kind}_DESTINATIONS_FOR_URL_INPUT") for kind in ("WHITELISTED", "BLACKLISTED"))
    return FetchPolicy(
        allow_urls=_switch("ALLOW_URL_INPUT", True),
        allow_http=_switch("ALLOW_NON_HTTPS_URL_INPUT", True),
        allow_without_domain=_switch("ALLOW_URL_INPUT_WITHOUT_FQDN", True),
        allow_private=_switch("ALLOW_URL_TO_NON_GLOBAL_ADDRESSES", True),
        allow_credentials=True,
        allow_list=None if allowed is None else hosts(allowed.split(",")),
        deny_list=frozenset() if denied is None else hosts(denied.split(",")),
        check_redirects=_switch("VALIDATE_IMAGE_URL_REDIRECTS", False),
        max_redirects=_number("MAX_IMAGE_URL_REDIRECTS", MAX_REDIRECTS),
        max_bytes=MAX_FETCHED_BYTES,
        timeout_s=configuration.timeout_s,
        connect_timeout_s=configuration.connect_timeout_s,
        by_proxy=True,
    )


def error_of(error: FetchError, url: str) -> InferenceError:
    """This client's error for one of a fetch."""
    said = f"the image at {without_keys(url)} can't be fetched: {error.reason}"
    if error.rule in _REFUSED_BY and _REFUSED_BY[error.rule] in os.environ:
        said += f" So says {_REFUSED_BY[error.rule]} of the environment."
    if error.rule in _NOT_ALLOWED:
        return InvalidURLImageInput(said, field="image")
    if error.rule == "address":
        return URLAddressNotAllowedError(said, field="image")
    if error.status is not None:
        return CallError(said, field="image", api_message=said, status_code=error.status, code=InvalidInput.code)
    return InvalidInput(said, field="image")


def _switch(name: str, default: bool) -> bool:
    value = os.environ.get(name)
    if value is None:
        return default
    if value.strip().lower() not in ("true", "false"):
        raise InvalidParameter(f"{name} of the environment must be true or false, got {value!r:.80}", field=name)
    return value.strip().lower() == "true"


def _number(name: str, default: int) -> int:
    value = os.environ.get(name, str(default)).strip()
    if not (value.isascii() and value.isdecimal() and len(value) < 10):
        raise InvalidParameter(f"{name} of the environment must be a number from 0, got {value!r:.80}", field=name)
    return int(value)
