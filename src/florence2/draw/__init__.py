"""Answers drawn on their pictures.

``annotate`` is what users call, and what ``Result.annotate`` calls; ``marks`` says what is drawn, ``layout`` where labels go, ``fonts`` and
``lettering`` with which letters, ``painting`` how lines look, ``display`` how it is shown. Needs Pillow and NumPy only.
"""

from __future__ import annotations

from florence2.draw.drawing import annotate
from florence2.draw.fonts import FontInput
from florence2.draw.marks import COLOURS

__all__ = ["COLOURS", "FontInput", "annotate"]
