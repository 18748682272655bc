"""The page at ``/`` on which models are tried in a browser; ``API`` is all that the app needs."""

from __future__ import annotations

from florence2.server.playground.api import API

__all__ = ["API"]
