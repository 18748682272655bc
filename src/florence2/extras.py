"""The extras of this distribution: which packages each brings, and the error where one of them is not installed.

In: an extra and what needs it. Out: ``MissingExtra`` with the line that installs it. Imports none of the packages.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from florence2.errors import MissingExtra

_ENGINE = frozenset({"huggingface_hub", "safetensors", "tokenizers", "torch"})
_HEIF, _PDF, _VIDEO, _PARQUET = (frozenset({name}) for name in ("pillow_heif", "pypdfium2", "av", "pyarrow"))
_SERVER = (
    _ENGINE
    | {"fastapi", "fastapi_offline", "httpcore2", "multipart", "prometheus_client", "pydantic", "pydantic_core", "pydantic_settings"}
    | {"pybase64", "python_multipart", "starlette", "uvicorn", "uvloop"}
)
_KEYS = _SERVER | {"alembic", "limits", "sqlalchemy"}
_LABEL = _ENGINE | _HEIF | _PDF | _VIDEO | _PARQUET
# By the names that are imported; an extra's own packages and those of the extras that it includes.
PACKAGES: dict[str, frozenset[str]] = {
    "engine": _ENGINE,
    "server": _SERVER,
    "keys": _KEYS,
    "postgresql": _KEYS | {"psycopg"},
    "redis": _KEYS | {"redis"},
    "otel": _SERVER | {"opentelemetry"},
    "bench": frozenset({"matplotlib"}),
    "mcp": _ENGINE | {"mcp", "mcp_types", "pydantic", "pydantic_core", "uvicorn"},
    "heif": _HEIF,
    "pdf": _PDF,
    "video": _VIDEO,
    "parquet": _PARQUET,
    "label": _LABEL,
    "cluster": _SERVER | _LABEL | {"fsspec", "ray", "yaml"},
    "train": _ENGINE | {"yaml"},
    "evaluate": _ENGINE | {"pycocoevalcap", "pycocotools", "rapidfuzz", "yaml"},
    "synthetic": frozenset({"matplotlib"}),
    "tensorboard": _ENGINE | {"tensorboard", "yaml"},
}


@contextmanager
def requires(extra: str, what: str) -> Iterator[None]:
    """Report a package that is missing inside of the block as the extra that brings it.

    Args:
        extra: a key of ``PACKAGES``.
        what: what needs the extra, as its user knows it: a function, a command, an option.

    Raises:
        MissingExtra: a package of the extra is not installed. Other modules that are missing are raised as they are.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in PACKAGES[extra]:
            raise
        raise MissingExtra(
            f"{what} needs the extra '{extra}' ({error.name} is missing): pip install 'florence2-engine[{extra}]'"
        ) from error


@contextmanager
def requires_package(package: str, what: str) -> Iterator[None]:
    """Report a package that no extra brings, because its users have it, where it is missing inside of the block.

    Args:
        package: its name, for the import as for the installer.
        what: what needs it, as its user knows it.

    Raises:
        MissingExtra: the package is not installed. Other modules that are missing are raised as they are.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise MissingExtra(f"{what} needs the package {package}, which is not installed: pip install {package}") from error


def lazy_names(package: str, module_of: Mapping[str, str], extra: str) -> Callable[[str], Any]:
    """A ``__getattr__`` for a package that computes with PyTorch: its public names, each loaded when it is first used.

    Args:
        package: the dotted name of the package.
        module_of: the module of the package that each name is in.
        extra: the extra that the names need; without it they raise ``MissingExtra``.
    """

    def load(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with requires(extra, f"{package}.{name}"):
            importlib.import_module("florence2.engine")  # before anything else imports PyTorch
            return getattr(importlib.import_module(f"{package}.{module_of[name]}"), name)

    return load
