"""JSON bodies, read within bounds.

Parsing holds the interpreter's lock, in a thread too, and what comes of it can take a hundred times the memory of the text. So the
characters that make values (brackets, commas, colons) are counted first, which takes milliseconds and lets other threads run; base64
holds none of them. Knows nothing of fields.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic_core import from_json

from florence2.server.errors import ValidationFailed

MAX_STRUCTURE = 100_000
"""Brackets, commas and colons in a body: parsed in 20 ms, and ten times what the largest sensible request has."""
SLICE_BYTES = 2**18  # what a processor's cache holds
_STRUCTURE = tuple(b"[{,:")


def parse_object(body: bytes | bytearray) -> dict[str, Any]:
    """The JSON object that a body holds.

    Raises:
        ValidationFailed: it holds none, or one of too many values.
    """
    if len(body) > MAX_STRUCTURE and _num_structural(body) > MAX_STRUCTURE:
        message = f"the body has more than {MAX_STRUCTURE} brackets, commas and colons; send fewer values, images as base64 text"
        raise _invalid("json_too_complex", message, "JSON of too many values")
    try:
        content = from_json(body, cache_strings="keys")
    except ValueError as error:
        raise _invalid("json_invalid", f"the body is no JSON: {error}", "JSON decode error") from None
    if not isinstance(content, dict):
        raise _invalid("model_attributes_type", "the body must be a JSON object", "Input should be an object")
    return content


def _num_structural(body: bytes | bytearray) -> int:
    """How many brackets, commas and colons there are; stops counting beyond the limit."""
    if len(body) <= SLICE_BYTES:  # parsed in the event loop, to which NumPy would not give the interpreter's lock back at once
        return sum(body.count(character) for character in _STRUCTURE)
    found = 0
    characters = np.frombuffer(body, np.uint8)
    for start in range(0, len(body), SLICE_BYTES):
        part = characters[start : start + SLICE_BYTES]
        found += sum(int(np.count_nonzero(part == character)) for character in _STRUCTURE)
        if found > MAX_STRUCTURE:
            break
    return found


def _invalid(kind: str, message: str, summary: str) -> ValidationFailed:
    return ValidationFailed(message, detail=[{"type": kind, "loc": ["body"], "msg": summary}])
