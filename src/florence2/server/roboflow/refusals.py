"""What is wrong with an image, in the words that clients of Roboflow's server look for.

In: an error of this project. Out: the error as those clients know it. Knows nothing of how images are fetched or read.
"""

from __future__ import annotations

from florence2.errors import InvalidImage
from florence2.server.errors import Failure, ImageTooLarge
from florence2.url_policy import FetchError, Rule

CAUSE = "Could not load input image. Cause: "
NOT_DECODED = "Data pointed by URL could not be decoded into image."
_CONFIGURED = "in this configuration of `inference`."
_INVALID = "Provided image URL is invalid."
# A rule that is not here is described after ``NOT_DECODED``.
_WORDS: dict[Rule, str] = {
    "off": f"Providing images via URL is not supported {_CONFIGURED}",
    "scheme": f"Providing images via non https:// URL is not supported {_CONFIGURED}",
    "domain": f"Providing images via URL without FQDN is not supported {_CONFIGURED}",
    "allow_list": "It is not allowed to reach image URL - prohibited by whitelisted destinations.",
    "deny_list": "It is not allowed to reach image URL - prohibited by blacklisted destinations.",
    "address": "URL points to a network destination that is not allowed.",
}


def refusal(cause: str) -> InvalidImage:
    """The error for an image that can't be had."""
    return InvalidImage(CAUSE + cause, field="image")


def as_input_error(error: Failure) -> Failure:
    """An error about an image, beginning as clients know it."""
    return error if error.message.startswith(CAUSE) else error.with_message(CAUSE + error.message)


def fetch_refusal(error: FetchError) -> InvalidImage:
    """The error for an image that its URL does not give."""
    if error.rule == "too_large":
        return ImageTooLarge(f"{CAUSE}{error.reason}; send a smaller image.", field="image")
    if error.rule in _WORDS:
        return refusal(_WORDS[error.rule])
    if error.rule in ("invalid", "credentials"):
        return refusal(f"{_INVALID} {error.reason}")
    return refusal(f"{'Data is not image.' if error.rule == 'not_image' else NOT_DECODED} {error.reason}")
