"""Evaluation: ``evaluate`` measures how well a model answers the questions of a data set.

The names below are the public ones; each is loaded when it is first used, so that importing the package does not import PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from florence2.extras import requires

if TYPE_CHECKING:
    from florence2.evaluation.evaluation import Evaluation, evaluate
    from florence2.evaluation.metrics import Answered, Metric

__all__ = ["Answered", "Evaluation", "Metric", "evaluate"]


if not TYPE_CHECKING:  # or every misspelt name would be right to an editor

    def __getattr__(name: str) -> Any:
        """A public name, on its first use.

        Raises:
            MissingExtra: it needs a package that is not installed.
        """
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        with requires("evaluate", f"florence2.evaluation.{name}"):
            importlib.import_module("florence2.engine")  # before anything else imports PyTorch
            return getattr(importlib.import_module(f"{__name__}.{'metrics' if name in ('Answered', 'Metric') else 'evaluation'}"), name)
