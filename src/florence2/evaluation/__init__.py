"""Evaluation: ``evaluate`` measures how well a model answers the questions of a data set.

The names below are the public ones; each is loaded when it is first used, so that importing the package does not import PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from florence2.extras import lazy_names

if TYPE_CHECKING:
    from florence2.evaluation.evaluation import Evaluation, evaluate
    from florence2.evaluation.metrics import Answered, Metric

__all__ = ["Answered", "Evaluation", "Metric", "evaluate"]
_MODULE_OF = {"evaluate": "evaluation", "Evaluation": "evaluation", "Answered": "metrics", "Metric": "metrics"}

if not TYPE_CHECKING:  # or every misspelt name would be right to an editor
    __getattr__ = lazy_names(__name__, _MODULE_OF, "evaluate")
