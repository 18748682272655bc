"""Training: ``fine_tune`` trains a checkpoint on your own data.

The names below are the public ones; each is loaded when it is first used, so that importing the package does not import PyTorch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from florence2.extras import requires

if TYPE_CHECKING:
    from florence2.training.fine_tuning import fine_tune
    from florence2.training.options import FineTuneData, FineTuneOptions, Outcome, Step

__all__ = ["FineTuneData", "FineTuneOptions", "Outcome", "Step", "fine_tune"]


if not TYPE_CHECKING:  # or every misspelt name would be right to an editor

    def __getattr__(name: str) -> Any:
        """A public name, on its first use.

        Raises:
            MissingExtra: it needs a package that is not installed.
        """
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        with requires("train", f"florence2.training.{name}"):
            importlib.import_module("florence2.engine")  # before anything else imports PyTorch
            return getattr(importlib.import_module(f"{__name__}.{'fine_tuning' if name == 'fine_tune' else 'options'}"), name)
