"""The bytes behind base64 text as people have it: wrapped, unpadded, or in the alphabet for URLs.

In: text without what may stand in front of it. Out: bytes. Knows nothing of pictures.
"""

from __future__ import annotations

import base64
import re


def decode_base64(text: str) -> bytes:
    """The bytes behind base64 text.

    Raises:
        ValueError: it is no base64.
    """
    plain = re.sub(r"\s", "", text).rstrip("=").replace("-", "+").replace("_", "/")
    return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
