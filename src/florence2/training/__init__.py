"""Training: ``fine_tune`` trains a checkpoint on your own data.

The names below are the public ones; each is loaded when it is first used, so that importing the package does not import PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from florence2.extras import lazy_names

if TYPE_CHECKING:
    from florence2.training.fine_tuning import fine_tune
    from florence2.training.options import FineTuneData, FineTuneOptions, Outcome, Step

__all__ = ["FineTuneData", "FineTuneOptions", "Outcome", "Step", "fine_tune"]
_MODULE_OF = {"fine_tune": "fine_tuning", **dict.fromkeys(("FineTuneData", "FineTuneOptions", "Outcome", "Step"), "options")}

if not TYPE_CHECKING:  # or every misspelt name would be right to an editor
    __getattr__ = lazy_names(__name__, _MODULE_OF, "train")
