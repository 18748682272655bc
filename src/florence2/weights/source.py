"""From the name of a model to a folder on this machine.

In: an alias, ``alias@revision``, a hub id, ``owner/name@revision``, or a folder. Out: the folder's path, after a download if needed.
Does not read the files.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from florence2.errors import ModelNotFound
from florence2.weights import hub
from florence2.weights.aliases import ALIASES
from florence2.weights.files import ADAPTER_CONFIG, check_is_adapter

logger = logging.getLogger(__name__)

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_LONGEST_SHOWN = 120
_PATH_STARTS = ("/", "./", "../", "~", ".\\", "..\\", "\\")


def resolve(name: str | Path) -> Path:
    """The local folder of a checkpoint or adapter, downloaded first if it is on the hub and not in the cache.

    Args:
        name: an alias of ``aliases.ALIASES``, a hub id (both may end in ``@revision``), or a folder. A folder with a checkpoint
            takes precedence over an alias of the same name.

    Raises:
        ModelNotFound: the alias, folder, repository or revision does not exist, or needs a token.
        DownloadError: the hub can't be reached and the cache has no complete copy, or the download failed.
    """
    path = Path(os.path.expanduser(name))  # unlike Path.expanduser, it does not fail without a home folder
    if isinstance(name, Path) or _is_checkpoint(path) or (os.path.isdir(path) and name not in ALIASES):
        return _local(path)
    stem, _, revision = name.partition("@")
    if stem in ALIASES:
        return _alias(stem, revision or None)
    if name.startswith(_PATH_STARTS) or re.match(r"[A-Za-z]:[\\/]", name):
        return _local(path)
    if _REPOSITORY.fullmatch(stem):
        return hub.fetch(stem, revision or None)
    if os.path.exists(path):
        return _local(path)
    raise ModelNotFound(_unknown(name, stem), field="model")


def resolve_adapter(name: str | Path) -> Path:
    """The local folder of a LoRA adapter, downloaded first if it is on the hub and not in the cache.

    Args:
        name: a folder, or a hub id, which may end in ``@revision``.

    Raises:
        ModelNotFound: the folder, repository or revision does not exist, or needs a token.
        DownloadError: as in ``resolve``.
        CheckpointError: the folder holds no adapter.
    """
    path, (stem, _, revision) = Path(os.path.expanduser(name)), str(name).partition("@")
    if os.path.isdir(path):
        folder = path.absolute()
    elif isinstance(name, str) and _REPOSITORY.fullmatch(stem):
        folder = hub.fetch(stem, revision or None)
    else:
        raise ModelNotFound(
            f"there is no adapter {_shown(name)!r}: give a folder with {ADAPTER_CONFIG}, or a hub id such as owner/name", field="adapters"
        )
    check_is_adapter(folder)
    return folder


def adapter_names(adapters: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> tuple[str | Path, ...]:
    """The adapters that a caller gives, one or several, as names and paths."""
    given = (adapters,) if isinstance(adapters, str | os.PathLike) else adapters
    return tuple(adapter if isinstance(adapter, str) else Path(adapter) for adapter in given)


def _is_checkpoint(path: Path) -> bool:
    # Unlike the methods of Path, these return False for a name that can't be a path (too long, or with a null byte).
    return os.path.isfile(path / "config.json") or os.path.isfile(path / ADAPTER_CONFIG)


def _local(path: Path) -> Path:
    path = path.absolute()
    if os.path.isdir(path):
        return path
    if os.path.isfile(path):
        raise ModelNotFound(
            f"Expected a folder with a checkpoint, got the file {path}. Give the folder that holds it and config.json: {path.parent}",
            field="model",
        )
    nearest = next(parent for parent in path.parents if os.path.exists(parent))
    raise ModelNotFound(
        f"There is no folder {_shown(path)} (the part that exists is {nearest}). Give a folder with config.json and weights, "
        f"a hub id such as microsoft/Florence-2-base, or one of: {', '.join(ALIASES)}.",
        field="model",
    )


def _alias(name: str, revision: str | None) -> Path:
    repository = ALIASES[name].repository
    if os.path.exists(name):
        logger.info("%s means the published checkpoint; write ./%s for the folder of that name", name, name)
    if repository is not None:
        return hub.fetch(repository, revision)
    if revision is not None:
        raise ModelNotFound(f"{name} comes with the package and has no revisions: leave out @{revision}.", field="model")
    folder = Path(os.fspath(resources.files("florence2") / "demo"))  # type: ignore[call-overload]
    if not _is_checkpoint(folder):
        raise ModelNotFound(f"{name} is not part of this installation: {folder} holds no config.json. Reinstall florence2.", field="model")
    return folder


def _shown(name: str | Path) -> str:
    return str(name) if len(str(name)) <= _LONGEST_SHOWN else f"{str(name)[:_LONGEST_SHOWN]}…"


def _unknown(name: str, stem: str) -> str:
    close = difflib.get_close_matches(stem.lower().replace("_", "-"), ALIASES, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]}?" if close else ""
    return (
        f"Unknown model {_shown(name)!r}.{hint} Known aliases: {', '.join(ALIASES)}. A hub id has the form owner/name[@revision]; "
        "a folder is given by its path."
    )
