"""Labelling: pictures in, a data set out, by an engine in this process or a server.

``label`` is the whole run, ``LabelOptions`` what it is asked to do. Both are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from florence2.labelling.options import LabelOptions
    from florence2.labelling.outputs import labelled_set
    from florence2.labelling.run import LabelSummary, label, rebuild

__all__ = ["LabelOptions", "LabelSummary", "label", "labelled_set", "rebuild"]

_MODULE_OF = {"LabelOptions": "options", "LabelSummary": "run", "label": "run", "labelled_set": "outputs", "rebuild": "run"}


if not TYPE_CHECKING:  # or every misspelt name would be right to an editor

    def __getattr__(name: str) -> Any:
        """A public name, on its first use."""
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
