"""The server: the only room that knows HTTP.

``create_app(settings)`` makes the application, ``Settings`` holds everything that can be set, ``florence2 serve`` is both in one.
``inference`` answers images and prompts and knows no API, ``http`` is what all APIs have in common, ``roboflow`` and ``openai`` are the
APIs, and ``app`` puts them together. Knows nothing of tokens or weights.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from florence2.server.app import create_app
    from florence2.server.settings import Settings

__all__ = ["Settings", "create_app"]

_MODULE_OF = {"create_app": "florence2.server.app", "Settings": "florence2.server.settings"}


if not TYPE_CHECKING:  # or every misspelt name would be right to an editor

    def __getattr__(name: str) -> Any:
        # The command line imports this room to know its command; it must not pay for what only a running server needs.
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(_MODULE_OF[name]), name)
