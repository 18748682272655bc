"""A model behind a server with ``/infer/lmm``, asked by the client: many requests at once, and none given up while the server answers any.

In: pictures and prompts. Out: results. Files that every server reads travel as they are, all else as JPEG. This project's server gets all
prompts of a picture in one request; others get one each, and no field that they do not know. Busy servers (429, 503) are waited for as long
as they ask, and broken connections are tried again, until for some minutes no request at all has been answered. Knows nothing of journals.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from florence2.client import (
    Answer,
    CallError,
    CallTimeout,
    ConnectionFailed,
    InferenceConfiguration,
    InferenceError,
    InferenceHTTPClient,
    UnexpectedAnswer,
)
from florence2.client.wire import OWN_SERVER, RETRYABLE
from florence2.errors import InvalidOption
from florence2.image_files import format_of
from florence2.labelling.answering import ModelGone, asked_apart

if TYPE_CHECKING:
    from PIL import Image

    from florence2.images.resized import ResizedPicture
    from florence2.results import Result

DEFAULT_CONCURRENCY = 16
PATIENCE_S = 300.0
_RETRIES = 8  # of the client for one call, a good minute; then it is seen whether any other call had an answer
_LONGEST_WAIT_S = 900.0
_TRAVELLING = ("JPEG", "PNG")
"""The formats that every server reads."""
_BUSY = RETRYABLE | {502}
_PAUSE_S = 1.0
_PROMPTS_PER_CALL = 16
"""As many as a server takes that is not set otherwise; it keeps the encoded picture for the next of them."""
_OF_ONE_PICTURE = frozenset({400, 413, 415, 422, 500})
"""Statuses that may lie in the picture; all others would be the same for each."""

Value = TypeVar("Value")


class ServedModel:
    """One model of a server.

    Args:
        api_url: the server's address.
        name: the model, as the server calls it.
        options: of every request; only this project's server gets them all.
        api_key: the server's key; None for ``FLORENCE2_API_KEY`` of the environment.
        concurrency: how many requests are under way at once.
        patience_s: how long nothing may be answered; None for ``PATIENCE_S``.

    Raises:
        InvalidOption: the address, the key or the number of requests can't be.
        ModelGone: nobody listens there.
    """

    def __init__(
        self,
        api_url: str,
        name: str,
        options: Mapping[str, Any],
        *,
        api_key: str | None = None,
        concurrency: int = DEFAULT_CONCURRENCY,
        patience_s: float | None = None,
    ) -> None:
        self.capacity = concurrency
        self._name, self._options = name, dict(options)
        self._patience_s = PATIENCE_S if patience_s is None else patience_s
        self._client = InferenceHTTPClient(api_url, api_key)
        self._answered_at = time.monotonic()
        self._is_own = self._is_of_this_project()
        self._client.configure(InferenceConfiguration(max_retries=_RETRIES, max_retry_wait_s=_LONGEST_WAIT_S))

    def ask(self, picture: Image.Image | ResizedPicture, prompts: Sequence[str], file: Path | None) -> list[Result]:
        """See ``AnsweringModel``."""
        sent: Any = file if file is not None and _travels(file) else picture
        answers = self._asked_together(sent, prompts) if self._is_own else self._asked_apart(sent, prompts)
        for answer in answers:
            if answer.image_size != picture.size:
                raise UnexpectedAnswer(f"the server saw a picture of {answer.image_size}, and it has {picture.size} pixels")
        return answers

    def close(self, *, cancel: bool) -> None:
        """See ``AnsweringModel``."""
        if not cancel:  # threads that are to be left behind may still use the connections
            self._client.close()

    def _asked_together(self, sent: Any, prompts: Sequence[str]) -> list[Result]:
        """The answers of a server of this project."""

        def ask(some: Sequence[str], options: Mapping[str, Any]) -> list[Result]:
            answers: list[Result] = []
            for start in range(0, len(some), _PROMPTS_PER_CALL):
                part = list(some[start : start + _PROMPTS_PER_CALL])
                answers += self._called(lambda part=part: self._client.infer_lmm(sent, self._name, prompts=part, typed=True, **options))
            return answers

        return asked_apart(prompts, {**self._options, "scores": True, "coordinates": "float", "raw": True}, ask)

    def _asked_apart(self, sent: Any, prompts: Sequence[str]) -> list[Result]:
        """The answers of a server of which nothing is known."""
        if more := sorted(self._options.keys() - {"max_new_tokens"}):
            raise InvalidOption(
                f"{more[0]}= is known to servers of florence2 alone, and {self._client.api_url} is none; leave it out", field=more[0]
            )
        return [self._asked_alone(sent, prompt) for prompt in prompts]

    def _asked_alone(self, sent: Any, prompt: str) -> Answer:
        """The answer to one prompt, asked of a server of which nothing else is known."""
        return self._called(lambda: self._client.infer_lmm(sent, self._name, prompt, typed=True, **self._options))

    def _is_of_this_project(self) -> bool:
        """Whether the server knows all fields of this project's.

        Raises:
            ModelGone: nobody listens there.
        """
        while True:
            try:
                return self._client.get_server_info().name == OWN_SERVER
            except (ConnectionFailed, CallTimeout) as error:
                raise ModelGone(error.message) from error
            except InferenceError as error:
                if error.status_code not in _BUSY:  # it has no such page
                    return False
                self._check_patience(error)

    def _called(self, call: Callable[[], Value]) -> Value:
        """What a call gives, made again while the server is busy or not to be reached.

        Raises:
            ModelGone: it is for too long, or refuses for a reason that does not lie in the picture.
            InferenceError: the server refuses this picture.
        """
        while True:
            try:
                value = call()
            except (ConnectionFailed, CallTimeout, CallError) as error:
                self._check_patience(error)
            else:
                self._answered_at = time.monotonic()
                return value

    def _check_patience(self, error: InferenceError) -> None:
        """Return if the call is to be made again."""
        status = error.status_code
        if status is not None and status not in _BUSY:
            self._answered_at = time.monotonic()
            if status in _OF_ONE_PICTURE:
                raise error
            raise ModelGone(error.message) from error
        if error.retry_after is not None and error.retry_after > _LONGEST_WAIT_S:
            raise ModelGone(f"{error.message}; the server asks to wait {error.retry_after:.0f} s") from error
        silent_s = time.monotonic() - self._answered_at
        if silent_s >= self._patience_s:
            raise ModelGone(f"{error.message} (no answer for {silent_s:.0f} s)") from error
        time.sleep(min(_PAUSE_S, self._patience_s))


def _travels(file: Path) -> bool:
    """Whether every server reads the file."""
    try:
        with file.open("rb") as opened:
            return format_of(opened.read(64)) in _TRAVELLING
    except OSError:
        return False
