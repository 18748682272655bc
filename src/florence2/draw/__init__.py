"""Answers drawn on their pictures.

``annotate`` is the entry point, which ``Result.draw`` also calls. ``marks`` has the outlines and labels, ``layout`` the positions of
labels, ``fonts`` and ``lettering`` draw text, ``painting`` draws lines, and ``display`` shows the drawing. Needs Pillow and NumPy only.
"""

from __future__ import annotations

from florence2.draw.drawing import annotate
from florence2.draw.fonts import FontInput
from florence2.draw.marks import COLOURS

__all__ = ["COLOURS", "FontInput", "annotate"]
