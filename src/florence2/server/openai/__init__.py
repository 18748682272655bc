"""The API of OpenAI's chat completions: ``/v1/chat/completions`` and ``/v1/models``; ``API`` is all that the app needs."""

from __future__ import annotations

from florence2.server.openai.api import API

__all__ = ["API"]
