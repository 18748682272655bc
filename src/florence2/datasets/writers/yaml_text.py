"""Texts as YAML writes them in double quotes, so that no class is read as a number, a truth value or a comment.

In: any text. Out: a double-quoted scalar of YAML 1.1 and 1.2 on one line. What YAML does not take as it is, is written as an escape.
"""

from __future__ import annotations

import re

# All that is not printable by YAML 1.2, section 5.1, and what would end or open something within the quotes.
_ESCAPED = re.compile(r'["\\]|[^\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]')


def quoted(text: str) -> str:
    """The text in double quotes; half of a surrogate pair, which no file can hold, becomes U+FFFD."""
    return f'"{_ESCAPED.sub(_escape, text)}"'


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    if character in '"\\':
        return "\\" + character
    code = ord(character)
    if 0xD800 <= code <= 0xDFFF:
        code = 0xFFFD
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
