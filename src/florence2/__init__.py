"""Florence-2 on your own machines.

``load`` a checkpoint, ``run`` it on images. The names below are the public ones; each is loaded when it is first used, so
that importing the package costs nothing and a light install offers what it can.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from florence2.version import __version__

if TYPE_CHECKING:
    from florence2 import client, draw, engine, errors, evaluation, labelling, model, results, tasks, training, weights
    from florence2.engine.engine import Engine, load
    from florence2.errors import Florence2Error
    from florence2.results import Result
    from florence2.tasks.answer import parse
    from florence2.tasks.tokenizer import Tokenizer
    from florence2.tiling.tiles import Tiles

__all__ = [
    "Engine",
    "Florence2Error",
    "Result",
    "Tiles",
    "Tokenizer",
    "__version__",
    "client",
    "draw",
    "engine",
    "errors",
    "evaluation",
    "labelling",
    "load",
    "model",
    "parse",
    "results",
    "tasks",
    "training",
    "weights",
]

_MODULE_OF = {
    "Engine": "florence2.engine.engine",
    "load": "florence2.engine.engine",
    "Florence2Error": "florence2.errors",
    "Result": "florence2.results",
    "parse": "florence2.tasks.answer",
    "Tokenizer": "florence2.tasks.tokenizer",
    "Tiles": "florence2.tiling.tiles",
}
_MODULES = frozenset({"client", "draw", "engine", "errors", "evaluation", "labelling", "model", "results", "tasks", "training", "weights"})


if not TYPE_CHECKING:  # or every misspelt name would be right to an editor

    def __getattr__(name: str) -> Any:
        """A public name, on its first use.

        Raises:
            MissingExtra: it needs a package that is not installed.
        """
        if name not in _MODULE_OF and name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from florence2.extras import requires

        with requires("engine", f"florence2.{name}"):
            if name in _MODULES:
                return importlib.import_module(f"{__name__}.{name}")
            value = getattr(importlib.import_module(_MODULE_OF[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """The public names."""
    return sorted({*globals(), *__all__})
