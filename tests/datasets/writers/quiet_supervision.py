"""``supervision``, imported without its warning that it works without OpenCV."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", UserWarning)
    import supervision

__all__ = ["supervision"]
