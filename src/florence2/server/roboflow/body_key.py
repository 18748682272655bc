"""The key in a body: the field ``api_key`` of JSON or of a form.

``find_key`` finds it at the beginning of a body that has not come in yet. Knows nothing of which keys there are.
"""

from __future__ import annotations

import re

from pydantic_core import from_json
from starlette.types import Scope

from florence2.server.http.api import is_below
from florence2.server.http.auth import content_kind
from florence2.server.http.body import ShownKey

BODY_PATHS = ("/infer/lmm", "/model/add", "/model/remove")
KEYED_KINDS = ("application/json", "multipart/form-data")
_STRING = rb'"([^"\\]*(?:\\.[^"\\]*)*)"'
# A member whose value is no list and no object; the character behind it shows that a number or a word is complete.
_MEMBER = re.compile(rb"\s*" + _STRING + rb"\s*:\s*(?:" + _STRING + rb"|[\w.+-]+(?=[\s,}]))\s*,?", re.DOTALL)
_START = re.compile(rb"\s*\{")
# With bounds on lines and their lengths: what has none of them is searched to its end for every name in it.
_FORM_KEY = re.compile(rb'\bname="?api_key"?[^\r\n]{0,200}\r\n(?:[^\r\n]{1,200}\r\n){0,4}\r\n([^\r\n]{0,1024})\r\n', re.IGNORECASE)


def may_hold_key(scope: Scope) -> bool:
    """Whether the body of a request may hold a key."""
    if scope["method"] != "POST" or not any(is_below(scope["path"], path) for path in BODY_PATHS):
        return False
    # The routes of management need no content type.
    return is_below(scope["path"], "/model") or content_kind(scope) in KEYED_KINDS


def find_key(scope: Scope, beginning: bytes) -> ShownKey | None:
    """The key that the beginning of a body shows; None: it shows none yet."""
    if content_kind(scope) == "multipart/form-data":
        match = _FORM_KEY.search(beginning)
        # What looks like a wrong key may stand in a file: the parsed form decides.
        return None if match is None else ShownKey(match.group(1).decode("utf-8", "replace"), is_certain=False)
    is_shown, key = shown_key(beginning)
    return ShownKey(key, is_certain=True) if is_shown else None


def shown_key(beginning: bytes) -> tuple[bool, object]:
    """Whether the beginning of a JSON object shows its ``api_key``, and that key.

    Looks as far as the first member that is a list or an object, or is not whole yet. Known clients write the key in front of images.
    """
    start = _START.match(beginning)
    end = start.end() if start else len(beginning)
    while (member := _MEMBER.match(beginning, end)) is not None:
        end = member.end()
        if member.group(1) == b"api_key":
            return True, _text(member.group(2))
    return False, None


def _text(written: bytes | None) -> str | None:
    """A JSON text between its quotes; None for what is no text."""
    try:
        return None if written is None else from_json(b'"' + written + b'"')
    except ValueError:
        return None
