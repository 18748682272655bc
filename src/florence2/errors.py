"""Every error of the project.

Florence2Error
├── InvalidRequest        the caller's mistake in one request (also a ValueError)
│   ├── UnknownTask       a tag that is none of the fifteen
│   ├── InvalidPrompt     text or region missing or not wanted
│   │   └── PromptTooLong  more characters or tokens than are taken
│   ├── InvalidRegion     a region that is no box inside the image
│   ├── InvalidImage      bytes, path or array that hold no readable image
│   ├── InvalidOption     a generation option out of range
│   └── DatasetError      a data set that holds what can't be used
├── ModelNotFound         an alias, folder or hub repository that is not there
├── CheckpointError       a folder whose files are damaged, incomplete or foreign
│   └── NeedsMerging      an adapter that can't share the weights of its base
├── DownloadError         the hub could not be reached or broke off
├── MissingExtra          a part of the project that is not installed
├── OutOfMemory           not enough memory to decode an image, or for a step of the engine
├── EngineClosed          the engine no longer takes requests
├── EngineDied            the process that the engine runs in has ended
└── EngineFailed          a step failed for a reason that is not the caller's

Each class has a stable ``code`` (for programs) and an HTTP ``status`` (for the server); ``field`` names the request
field that is at fault, where there is one. Messages say what was expected, what came and what to do; an error that is to
say something else is replaced by a copy of it (``with_message``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from typing import Self

Error = TypeVar("Error", bound="Florence2Error")


class Florence2Error(Exception):
    """The root of everything that this package raises on purpose.

    Attributes:
        field: the request field that is at fault; None where there is none.
    """

    code = "internal"
    status = 500

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field

    @property
    def message(self) -> str:
        """The text of the error: what it was made with."""
        return self.args[0]

    def with_message(self, message: str, *, field: str | None = None) -> Self:
        """A copy of the error with another message.

        Args:
            message: the new message.
            field: the request field that the copy names; None for the same as before.
        """
        state = {**vars(self), "field": field if field is not None else self.field}
        return _rebuilt(type(self), message, state)

    def __reduce__(self) -> tuple[Any, ...]:
        """The error for ``copy`` and ``pickle``, whatever the arguments of its class are."""
        return _rebuilt, (type(self), self.args[0], vars(self).copy())


def _rebuilt(kind: type[Error], message: str, state: dict[str, Any]) -> Error:
    """An error of a class, made without the class's own constructor."""
    error = kind.__new__(kind, message)
    Florence2Error.__init__(error, message)
    vars(error).update(state)
    return error


class InvalidRequest(Florence2Error, ValueError):
    """The caller's mistake in one request."""

    code = "invalid_request"
    status = 400


class UnknownTask(InvalidRequest):
    """A task tag that is none of the fifteen."""

    code = "unknown_task"


class InvalidPrompt(InvalidRequest):
    """A prompt whose text or region is missing or not wanted."""

    code = "invalid_prompt"


class PromptTooLong(InvalidPrompt):
    """A prompt of more characters or tokens than are taken."""

    code = "prompt_too_long"


class InvalidRegion(InvalidRequest):
    """A region that is not a box inside the image."""

    code = "invalid_region"


class InvalidImage(InvalidRequest):
    """Something that holds no readable image."""

    code = "invalid_image"


class InvalidOption(InvalidRequest):
    """A generation option that is out of range."""

    code = "invalid_option"


class DatasetError(InvalidRequest):
    """A data set that is none, or that holds what can't be used; one line for each thing that is wrong."""

    code = "invalid_dataset"


class ModelNotFound(Florence2Error):
    """An alias, folder or hub repository that is not there."""

    code = "model_not_found"
    status = 404


class CheckpointError(Florence2Error):
    """A checkpoint folder whose files are damaged, incomplete or foreign."""

    code = "invalid_checkpoint"


class NeedsMerging(CheckpointError):
    """A LoRA adapter that is more than an update of linear layers, and can't share the weights of its base."""

    code = "needs_merging"


class DownloadError(Florence2Error):
    """The hub could not be reached, refused, or broke off."""

    code = "download_failed"
    status = 502


class MissingExtra(Florence2Error, ImportError):
    """A part of the project whose optional dependencies are not installed."""

    code = "missing_extra"


class OutOfMemory(Florence2Error):
    """There is not enough memory to decode an image, or for a step of the engine."""

    code = "out_of_memory"
    status = 503


class EngineClosed(Florence2Error):
    """The engine is closed and takes no more requests."""

    code = "engine_closed"
    status = 503


class EngineDied(Florence2Error):
    """The process that the engine runs in has ended, and everything in it is lost.

    Attributes:
        retry_after_s: when it may run again.
        has_ended_loading: it was loading the model that was asked for, so that this may be why.
    """

    code = "engine_died"
    status = 503

    def __init__(
        self,
        message: str = "the engine's process has ended and is being started again; send the request again",
        *,
        retry_after_s: int = 2,
    ) -> None:
        super().__init__(message)
        self.has_ended_loading = False
        self.retry_after_s = retry_after_s


class EngineFailed(Florence2Error):
    """A step of the engine failed for a reason that is not the caller's."""

    code = "engine_failed"
