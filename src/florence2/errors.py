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
├── DownloadError         the hub could not be reached or broke off
├── MissingExtra          a part of the project that is not installed
├── OutOfMemory           not enough memory to decode an image
├── EngineClosed          the engine no longer takes requests
└── EngineFailed          a step failed for a reason that is not the caller's

Each class has a stable ``code`` (for programs) and an HTTP ``status`` (for the server); ``field`` names the request
field that is at fault, where there is one. Messages say what was expected, what came and what to do.
"""

from __future__ import annotations


class Florence2Error(Exception):
    """The root of everything that this package raises on purpose."""

    code = "internal"
    status = 500

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


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


class DownloadError(Florence2Error):
    """The hub could not be reached, refused, or broke off."""

    code = "download_failed"
    status = 502


class MissingExtra(Florence2Error, ImportError):
    """A part of the project whose optional dependencies are not installed."""

    code = "missing_extra"


class OutOfMemory(Florence2Error):
    """There is not enough memory to decode an image."""

    code = "out_of_memory"
    status = 503


class EngineClosed(Florence2Error):
    """The engine is closed and takes no more requests."""

    code = "engine_closed"
    status = 503


class EngineFailed(Florence2Error):
    """A step of the engine failed for a reason that is not the caller's."""

    code = "engine_failed"
