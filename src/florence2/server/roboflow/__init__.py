"""The API of Roboflow's inference server: ``/infer/lmm``, the management of models, ``/info``; ``API`` is all that the app needs."""

from __future__ import annotations

from florence2.server.roboflow.api import API

__all__ = ["API"]
