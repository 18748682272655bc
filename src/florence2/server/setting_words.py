"""What pydantic says of a value that can't be, in this project's words. Knows no setting."""

from __future__ import annotations

import re

# pydantic's wording, and this project's.
_WORDS = {
    "Input should be": "must be",
    "less than or equal to": "at most",
    "greater than or equal to": "at least",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid boolean": "true or false",
    "a valid string": "a text",
}


def in_plain_words(message: str) -> str:
    """What pydantic says of a value, as this project says it."""
    message = re.sub(r"^Value error, |, unable to \w+ .*$", "", message)
    for theirs, ours in _WORDS.items():
        message = message.replace(theirs, ours)
    return message
