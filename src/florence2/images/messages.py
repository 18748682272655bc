"""What errors say of images: how they name and quote what came, and the sentences that several rooms need.

In: what a caller gave. Out: text of bounded length, or an ``InvalidImage`` that holds it. Knows nothing of Pillow.
"""

from __future__ import annotations

import os

from florence2.errors import InvalidImage

MAX_MESSAGE_CHARS = 500


def invalid(message: str) -> InvalidImage:
    """The error about an image, its message shortened."""
    return InvalidImage(shortened(message), field="image")


def shortened(message: str) -> str:
    """The message of an error, cut where it is too long to be read."""
    return message if len(message) <= MAX_MESSAGE_CHARS else message[: MAX_MESSAGE_CHARS - 1] + "…"


def shown(text: str) -> str:
    """A text in quotation marks as messages repeat it: whole where it is short."""
    return repr(text) if len(text) <= 120 else repr(text[:60]) + f"… ({len(text)} characters)"


def type_of(value: object) -> str:
    """A value's type, with what helps to make an image of it."""
    if hasattr(value, "__array__"):
        return f"{type(value).__name__[:60]}; give numpy.asarray(image)"
    if hasattr(value, "read"):
        return f"{type(value).__name__}; give what its read() returns"
    return "None" if value is None else type(value).__name__[:60]


def no_file(path: str, remark: str = "") -> str:
    """The sentence about a file that is not there.

    Args:
        path: the file's path.
        remark: what stands behind the path, such as what else the text is not.
    """
    try:
        folder = f"; the current folder is {shown(os.getcwd())}"
    except OSError:  # it was removed
        folder = "; the current folder is gone"
    return f"there is no file {shown(path)}{remark}{folder}"


def is_folder(path: str) -> str:
    """The sentence about a folder where a file is expected."""
    return f"{shown(path)} is a folder; give the path of an image file"


def unreadable(path: str, error: OSError | ValueError) -> str:
    """The sentence about a file that the system does not let be read."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    return f"the file {shown(path)} can't be read: {reason}"


def not_a_file_url(text: str) -> str:
    """The sentence about a ``file:`` URL where a path is expected."""
    return f"an image must be a path, not a file URL: give {shown(text.strip()[5:].removeprefix('//'))}"
