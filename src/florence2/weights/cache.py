"""Checks of the hub's cache on this disk: whether it is writable, and whether its files are complete.

In: folders and files of the cache. Out: nothing, or an error that names the folder and the environment variable that sets another
one. Knows nothing of the network.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

from florence2.errors import DownloadError
from florence2.weights.files import BASE_FOLDER, INDEX_SUFFIX, choose_adapter_weights, choose_container, is_adapter

_SHA256 = re.compile(r"[0-9a-f]{64}")
_GIT_SHA1 = re.compile(r"[0-9a-f]{40}")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FILE_IN_THE_WAY = {errno.EEXIST, errno.ENOTDIR}
_REASON_LENGTH = 150
_REMEDY = "or point HF_HUB_CACHE (or HF_HOME) at another folder."


def check_writable(what: str, cache: Path, folders: Iterable[Path]) -> None:
    """Check that the cache is writable, before anything is fetched.

    Args:
        what: the name of what will be fetched, for the message.
        cache: the cache's folder; created if it is missing.
        folders: folders inside it that will be written to; missing ones are not checked.

    Raises:
        DownloadError: a folder is not writable; the message says which and why.
    """
    folder = cache
    try:
        cache.mkdir(parents=True, exist_ok=True)
        for folder in (cache, *folders):
            if os.path.lexists(folder):
                with tempfile.TemporaryFile(dir=folder):
                    pass
    except OSError as error:
        error.filename = str(folder)
        raise unwritable(what, cache, error) from error


def unwritable(what: str, cache: Path, error: OSError) -> DownloadError:
    """The error for a download that failed because of the disk."""
    if error.filename and Path(os.fsdecode(error.filename)) not in (cache, *cache.parents) and not _is_inside(error.filename, cache):
        return DownloadError(
            f"{what[:_REASON_LENGTH]} could not be fetched: {str(error.filename)[:_REASON_LENGTH]}: {error.strerror}. The hub's client "
            "keeps its login there; point HF_HOME (or HF_TOKEN_PATH) at a place that this user can read, and HF_HUB_CACHE at the cache.",
            field="model",
        )
    where = f" ({str(error.filename)[:_REASON_LENGTH]})" if error.filename and str(error.filename) != str(cache) else ""
    said = "a file is in the way" if error.errno in _FILE_IN_THE_WAY else error.strerror or type(error).__name__
    reason = f"{said}{where}"
    remedy = "Free some space" if error.errno in _FULL else "Make it a folder that this user can write to"
    return DownloadError(
        f"{what[:_REASON_LENGTH]} can't be kept in the cache {str(cache)[:_REASON_LENGTH]}: {reason}. {remedy}, {_REMEDY}", field="model"
    )


def _is_inside(name: str | bytes, folder: Path) -> bool:
    return Path(os.fsdecode(name)).absolute().is_relative_to(folder)


def homeless(what: str) -> DownloadError:
    """The error for a cache in the home folder of a user who has none."""
    return DownloadError(
        f"{what[:_REASON_LENGTH]} needs a cache, and this user has no home folder to keep one in. Set HF_HUB_CACHE (or HF_HOME) to a "
        "folder that can be written to.",
        field="model",
    )


def is_complete(folder: Path) -> bool:
    """Whether a folder holds a configuration and all files of its weights, or an adapter (and all of its base, if that is inside)."""
    return not missing_files(folder)


def missing_files(folder: Path) -> list[str]:
    """What a folder lacks of a checkpoint or adapter: names of files, as far as they are known."""
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    if is_adapter(names):
        base = folder / BASE_FOLDER
        own = [] if choose_adapter_weights(names) is not None else ["the adapter's weights"]
        return [*own, *(f"{BASE_FOLDER}/{name}" for name in (missing_files(base) if base.is_dir() else ()))]
    container = choose_container(names)
    missing = [] if "config.json" in names else ["config.json"]
    if container is None:
        return [*missing, "the weights"]
    if not container.endswith(INDEX_SUFFIX):
        return missing
    try:
        shards = set(json.loads((folder / container).read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError):
        return [*missing, f"the shards of {container}, which is damaged"]
    return [*missing, *sorted(shards - names)]


def lacks(snapshots: Path) -> str:
    """A sentence on what is missing of a repository's revisions in the cache; "" where none is there in part."""
    if not snapshots.is_dir():
        return ""
    parts = {folder.name[:12]: missing_files(folder) for folder in sorted(snapshots.iterdir()) if folder.is_dir()}
    said = [f"{name} lacks {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}" for name, missing in parts.items() if missing]
    return f" The cache has a part of it: {'; '.join(said[:3])}." if said else ""


def is_whole(file: Path, digest: str) -> bool:
    """Whether a file has the digest that is its ETag on the hub; True if the tag is no digest.

    Large files have their SHA-256 as tag, small ones git's SHA-1. Source: git's object format.
    """
    if _SHA256.fullmatch(digest):
        return _digest(file, hashlib.sha256()) == digest
    if _GIT_SHA1.fullmatch(digest):
        return _digest(file, hashlib.sha1(f"blob {file.stat().st_size}\0".encode(), usedforsecurity=False)) == digest
    return True


def _digest(path: Path, digest: hashlib._Hash) -> str:
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()
