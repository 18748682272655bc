"""The server's own errors, and the form that errors have for clients by default.

To the tree of ``florence2.errors`` this adds the errors that only a server raises. ``as_json`` is an error's body, ``TABLE`` every code
with its remedy; ``docs/errors.md`` and the page ``/docs/errors`` are made from it. Knows nothing of routes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from florence2 import errors
from florence2.errors import EngineFailed, Florence2Error, InvalidImage, InvalidPrompt, InvalidRequest, PromptTooLong

Failure = TypeVar("Failure", bound=Florence2Error)


class ValidationFailed(InvalidRequest):
    """A body or parameter of the wrong form; ``detail`` lists each part."""

    code = "validation_failed"
    status = 422

    def __init__(self, message: str, *, field: str | None = None, detail: list[dict[str, Any]] | None = None) -> None:
        super().__init__(message, field=field)
        self.detail = detail or []


class UnsupportedArgument(InvalidRequest):
    """An argument that is not honoured here, or that there is not."""

    code = "unsupported_argument"


class ModelMismatch(InvalidRequest):
    """Two different models in the path and the body."""

    code = "model_mismatch"


class ImageTooLarge(InvalidImage):
    """An image of more pixels or bytes than are taken, or that takes too long to decode."""

    code = "image_too_large"
    status = 413


class TooManyImages(InvalidRequest):
    """More images or prompts in one request than are taken."""

    code = "too_many_items"
    status = 413


class BodyTooLarge(InvalidRequest):
    """A body of more bytes than are taken."""

    code = "body_too_large"
    status = 413


class HeadersTooLarge(InvalidRequest):
    """A request whose head has more lines or bytes than are taken."""

    code = "headers_too_large"
    status = 431


class BadFraming(InvalidRequest):
    """A request that is no HTTP, or whose length is told in two ways."""

    code = "bad_framing"


class BodyTimedOut(InvalidRequest):
    """A head or body that did not come in within its time."""

    code = "body_timed_out"
    status = 408


class UnsupportedMedia(InvalidRequest):
    """A body that is neither JSON nor form nor image."""

    code = "unsupported_media_type"
    status = 415


class Unauthorized(Florence2Error):
    """No key, or one that is not known."""

    code = "unauthorized"
    status = 401


class Forbidden(Florence2Error):
    """A key that is known and may not do this."""

    code = "forbidden"
    status = 403


class NotOffered(Florence2Error):
    """Something that this server's settings switch off."""

    code = "not_offered"
    status = 403


class OriginRefused(Florence2Error):
    """A request of another site's page, or one that reached the server by a foreign name."""

    code = "origin_refused"
    status = 403


class NotFound(Florence2Error):
    """A path that this server does not have."""

    code = "not_found"
    status = 404


class MethodNotAllowed(Florence2Error):
    """A path called with the wrong method."""

    code = "method_not_allowed"
    status = 405

    def __init__(self, message: str, allowed: str = "") -> None:
        super().__init__(message)
        self.allowed = allowed


class ClientLeft(Florence2Error):
    """The client closed the connection; only logs and metrics ever see this."""

    code = "client_left"
    status = 499


class TryAgain(Florence2Error):
    """A request that may be sent again, unchanged, after ``retry_after_s``."""

    status = 503
    retry_after_s = 1

    def __init__(self, message: str, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        if retry_after_s is not None:
            self.retry_after_s = retry_after_s


class Overloaded(TryAgain):
    """As many requests under way as the server takes."""

    code = "overloaded"
    status = 429


class RateLimited(TryAgain):
    """More requests of a key than it may send in a time."""

    code = "rate_limited"
    status = 429


class QuotaExceeded(RateLimited):
    """More images than a key may ask about in this month."""

    code = "quota_exceeded"


class KeysUnavailable(TryAgain):
    """A key that can't be looked up, because the database of keys does not answer."""

    code = "keys_unavailable"
    retry_after_s = 5


class ModelLoading(TryAgain):
    """A model that is still being loaded."""

    code = "model_loading"
    retry_after_s = 2


class Draining(TryAgain):
    """A server that is about to end."""

    code = "draining"
    retry_after_s = 5

    def __init__(self, message: str = "the server is shutting down; send the request again") -> None:
        super().__init__(message)


class TimedOut(Florence2Error):
    """A request that took longer than the server allows."""

    code = "timed_out"
    status = 504


class ModelFailed(Florence2Error):
    """A model that the server has but could not load."""

    code = "model_failed"


REMEDIES: dict[type[Florence2Error], str] = {
    InvalidRequest: "Read the message; `field` names what to change.",
    errors.UnknownTask: "Use one of the tags that the message lists, or a prompt that does not begin with a tag.",
    InvalidPrompt: "Give the text or region that the task needs, nothing where it takes none, and one task per prompt.",
    errors.InvalidRegion: "Send four pixels x1, y1, x2, y2 inside the image (after its EXIF rotation), or four `<loc_…>` tokens.",
    InvalidImage: "Check that the value holds a whole image file, and that its type says how it is written.",
    errors.InvalidOption: "Change the option that `field` names, or leave it out for the checkpoint's own value.",
    ValidationFailed: "Compare the request with `/docs`; `detail` lists each part that does not fit.",
    UnsupportedArgument: "Leave the argument out, or change it as the message says.",
    ModelMismatch: "Send the model id once, or the same model twice.",
    ImageTooLarge: "Scale the image down: the model sees it at its own size (768 x 768 for base and large) anyway.",
    TooManyImages: "Split the request.",
    PromptTooLong: "Shorten the prompt or its text.",
    BodyTooLarge: "Send fewer or smaller images, or URLs.",
    HeadersTooLarge: "Send fewer and shorter headers, and a shorter query.",
    BadFraming: "Send `Content-Length` or `Transfer-Encoding: chunked`, not both, and chunks of some size; mend what writes the request.",
    BodyTimedOut: "Send it faster or smaller, or the image's URL; with the key in the `Authorization` header there is more time.",
    UnsupportedMedia: "Send `Content-Type: application/json`, `multipart/form-data`, or `image/…` with the fields in the query.",
    Unauthorized: "Send a key: `?api_key=`, `Authorization: Bearer`, or `api_key` in the body.",
    Forbidden: "Use a key that may: the message names the role or the models; whoever runs the server gives keys out.",
    NotOffered: "Ask whoever runs the server; the message names the setting.",
    OriginRefused: "Ask whoever runs the server to name the page's origin (`allow_origins`) or the name of the server (`allow_hosts`).",
    errors.ModelNotFound: "Use one of the models that the message lists.",
    NotFound: "See `/docs` for the paths that there are.",
    MethodNotAllowed: "Use the method that the `Allow` header names.",
    Overloaded: "Wait for as long as `Retry-After` says, then send it again.",
    RateLimited: "Wait for as long as `Retry-After` says: until the key's next time begins.",
    QuotaExceeded: "Wait for the next month, or ask whoever runs the server for more.",
    KeysUnavailable: "Wait for as long as `Retry-After` says, then send it again.",
    ModelLoading: "Wait for as long as `Retry-After` says, then send it again.",
    Draining: "Send it again: another server answers, or this one after its restart.",
    ClientLeft: "Nothing: there is nobody to read it.",
    TimedOut: "Send fewer images, ask for fewer tokens or beams, or ask whoever runs the server for more time.",
    errors.OutOfMemory: "Send it again later, or scale the image down.",
    errors.EngineClosed: "Send it again.",
    errors.EngineDied: "Wait for as long as `Retry-After` says, then send it again; if one request ends so twice, report its id.",
    EngineFailed: "Send it again; if it fails again, report the request id.",
    ModelFailed: "Report it to whoever runs the server: the log has the cause.",
    errors.NeedsMerging: "Report it to whoever runs the server: the log has the cause.",
    errors.CheckpointError: "Report it to whoever runs the server: the log has the cause.",
    errors.DownloadError: "Try again later, or have the checkpoint put on the server.",
    errors.MissingExtra: "Report it to whoever runs the server: something is not installed.",
    Florence2Error: "Report the request id to whoever runs the server.",
}
"""What a client can do about each error, in the order of the documentation."""

TABLE: dict[str, type[Florence2Error]] = {kind.code: kind for kind in REMEDIES}
"""Every error by its code."""

_PATH = re.compile(r"(?<![\w.:/])(?:[A-Za-z]:)?(?:[/\\][\w.@+~ -]*[\w.@+~-]){2,}")
MAX_MESSAGE_CHARS = 500
MAX_FIELD_CHARS = 100
MAX_DETAILS = 16
UNAUTHORIZED_MESSAGE = "Unauthorized api_key"  # the words that known clients look for
INTERNAL_MESSAGE = "Internal error. The request id in the x-request-id header finds it in the server's log."


def as_json(error: Florence2Error, help_root: str) -> dict[str, Any]:
    """The JSON body of an error, a few kB long at most.

    Args:
        error: any error whose message the client may read (see ``for_client``).
        help_root: the address of the page that explains the codes.
    """
    body: dict[str, Any] = {
        "message": shortened(error.message, MAX_MESSAGE_CHARS),
        "code": error.code,
        "field": error.field and shortened(error.field, MAX_FIELD_CHARS),
        "help_url": f"{help_root}#{error.code}",
    }
    if isinstance(error, Unauthorized):
        body["status"] = error.status
    if isinstance(error, ValidationFailed):
        body["detail"] = error.detail[:MAX_DETAILS]
    return body


def retry_after_s(error: Florence2Error) -> int | None:
    """After how many seconds the request may be sent again; None where that would not help."""
    return getattr(error, "retry_after_s", 1) if isinstance(error, TryAgain) or error.status == 503 else None


def shortened(text: str, max_chars: int) -> str:
    """The text, or its beginning with an ellipsis if it is longer than ``max_chars``."""
    return text if len(text) <= max_chars else text[: max_chars - 1] + "…"


def for_client(error: Exception) -> Florence2Error:
    """The error as a client may see it: an error of the server itself keeps its code, and its message is replaced.

    What else is the server's fault keeps its message without paths, which may be those of another library's error.
    """
    if isinstance(error, Florence2Error):
        if error.status == 500:
            return type(error)(INTERNAL_MESSAGE)
        return error if error.status < 500 else error.with_message(_PATH.sub("…", error.message.partition("Traceback")[0]))
    return Florence2Error(INTERNAL_MESSAGE)


def with_field(error: Failure, field: str | None, prefix: str = "") -> Failure:
    """A copy of the error that names another field, its message behind a prefix."""
    return error.with_message(prefix + error.message, field=field)


@contextmanager
def naming(where: str | None) -> Iterator[None]:
    """Let errors raised within say which of several parts of a request they are about.

    Args:
        where: the part, such as "prompts[1]"; None: there is one only, and errors stay as they are.
    """
    try:
        yield
    except Florence2Error as error:
        raise (error if where is None else with_field(error, f"{where}.{error.field}", f"{where}: ")) from None


def as_markdown() -> str:
    """Every error, as a table for the documentation."""
    lines = ["| Code | Status | When | What to do |", "| --- | --- | --- | --- |"]
    lines += [f'| <a id="{code}"></a>`{code}` | {status} | {meaning} | {remedy} |' for code, status, meaning, remedy in rows()]
    return "\n".join(lines)


def rows() -> Iterator[tuple[str, int, str, str]]:
    """Code, status, meaning and remedy of every error."""
    for code, kind in TABLE.items():
        meaning = (kind.__doc__ or "").split("\n")[0] if kind is not Florence2Error else "Anything else that is the server's fault."
        yield code, kind.status, meaning, REMEDIES[kind]
