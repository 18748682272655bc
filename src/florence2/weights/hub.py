"""Downloads of checkpoints from the hub into its cache on this disk.

In: a repository and a revision. Out: the folder of that revision in the cache, which other programs share. Only the files that
``files.choose`` returns are fetched. Complete files are not fetched again, and an interrupted download of a large file is resumed, in this
process or the next. Without a network, or with ``HF_HUB_OFFLINE=1``, a complete copy in the cache is used. Does not read the files.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from florence2.certificates import certificate_hint
from florence2.errors import DownloadError, Florence2Error, InvalidOption, ModelNotFound
from florence2.extras import requires
from florence2.proxies import environment_for, proxy_for
from florence2.weights.cache import check_writable, homeless, is_complete, is_whole, lacks, unwritable
from florence2.weights.files import choose, choose_container, is_adapter
from florence2.weights.xet import append_by_xet, xet_file

if TYPE_CHECKING:
    from huggingface_hub.utils import XetFileData

logger = logging.getLogger(__name__)

DEFAULT_REVISION = "main"
PUBLIC_HUB = "https://huggingface.co"  # if the variable is empty
# A download fails after this many connections in a row without a byte; the delay is between two connections.
MAX_FAILURES = 4
RETRY_DELAY_S = 1.0
_LARGE = (".safetensors", ".bin")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TRUE = {"1", "ON", "YES", "TRUE"}
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class _Target:
    """One revision of one repository, the endpoint it is fetched from and the cache it is stored in."""

    repository: str
    revision: str
    endpoint: str
    cache: Path

    @property
    def label(self) -> str:
        return self.repository if self.revision == DEFAULT_REVISION else f"{self.repository}@{self.revision}"

    @property
    def storage(self) -> Path:
        """The cache's folder of this repository."""
        return self.cache / f"models--{self.repository.replace('/', '--')}"

    @property
    def written(self) -> list[Path]:
        """The folders of the cache that a download writes to."""
        return [self.cache / ".locks", self.storage, *(self.storage / name for name in ("blobs", "refs", "snapshots"))]


def fetch(repository: str, revision: str | None = None) -> Path:
    """The cache's folder of a repository's revision, with all files of the checkpoint in it.

    The endpoint, the cache, offline mode and the token come from ``HF_ENDPOINT``, ``HF_HUB_CACHE`` or ``HF_HOME``,
    ``HF_HUB_OFFLINE`` and ``HF_TOKEN`` (or the hub client's stored login), read at each call.

    Raises:
        ModelNotFound: the repository or revision does not exist, is not accessible, or holds no checkpoint.
        DownloadError: the hub can't be reached and the cache has no complete copy, or the download failed.
        MissingExtra: ``huggingface_hub`` is not installed.
    """
    target = _target(repository, revision or DEFAULT_REVISION)
    with _translated(target):
        cached = _cached(target)
    if cached is not None and _COMMIT.fullmatch(target.revision):
        return cached
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in _TRUE:
        return _offline(target, cached, "HF_HUB_OFFLINE is set")
    try:
        with _translated(target):
            check_writable(target.label, target.cache, target.written)
            return _download(target)
    except (DownloadError, ModelNotFound) as error:
        if cached is None and (part := lacks(target.storage / "snapshots")):
            raise error.with_message(error.message + part) from error
        if cached is None:
            raise
        logger.warning("%s Using the copy in the cache: %s", error.message, cached)
        return cached


def cached(repository: str, revision: str | None = None) -> Path | None:
    """The cache's folder of a repository's revision; None if it is not complete. The network is not used.

    Raises:
        MissingExtra: ``huggingface_hub`` is not installed.
        DownloadError: the user has no home folder, and no variable sets a cache.
    """
    return _cached(_target(repository, revision or DEFAULT_REVISION))


def _target(repository: str, revision: str) -> _Target:
    with requires("engine", "downloading models"):
        from huggingface_hub import constants
    # The hub's client reads these variables once, at its import; here they are read at each call.
    home = os.environ.get("HF_HOME")
    cache = os.environ.get("HF_HUB_CACHE") or (os.path.join(home, "hub") if home else constants.HF_HUB_CACHE)
    endpoint = os.environ.get("HF_ENDPOINT") or constants.ENDPOINT or PUBLIC_HUB
    if not endpoint.startswith(("https://", "http://")):
        raise DownloadError(f"Expected HF_ENDPOINT to be an address such as https://huggingface.co, got {endpoint!r}.", field="model")
    cache = os.path.expanduser(cache)
    if cache.startswith("~"):
        raise homeless(repository)
    return _Target(repository, revision, endpoint.rstrip("/"), Path(cache).absolute())


def _cached(target: _Target) -> Path | None:
    """The folder of this revision in the cache; None if files of the checkpoint are missing."""
    commit = target.revision
    reference = target.storage / "refs" / target.revision
    if not _COMMIT.fullmatch(commit):
        if not reference.is_file():
            return None
        commit = reference.read_text(encoding="utf-8").strip()
    folder = target.storage / "snapshots" / commit
    return folder if is_complete(folder) else None


def _offline(target: _Target, cached: Path | None, reason: str) -> Path:
    if cached is not None:
        return cached
    raise DownloadError(
        f"{target.label} is not, or not completely, in the cache {target.cache}, and {reason}. Fetch it once with network access "
        f"(florence2 pull {target.label}), point HF_HUB_CACHE at a cache that has it, or give a local folder."
        + lacks(target.storage / "snapshots"),
        field="model",
    )


def _download(target: _Target) -> Path:
    try:
        with environment_for(target.endpoint) as is_changed:
            if is_changed:
                _forget_session()
            return _download_directly(target)
    except InvalidOption as error:
        raise DownloadError(error.message, field=error.field) from None


def _forget_session() -> None:
    """Close the session of the hub's client, so that it reads the proxies of the environment again."""
    import huggingface_hub

    close = getattr(huggingface_hub, "close_session", None)
    if close is not None:
        close()


def _download_directly(target: _Target) -> Path:
    from huggingface_hub import HfApi, constants

    api = HfApi(endpoint=target.endpoint)
    info = api.model_info(target.repository, revision=target.revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    commit = info.sha or target.revision
    listing = [sibling.rfilename for sibling in info.siblings or []]
    if not listing:
        listing = api.list_repo_files(target.repository, revision=commit)
    chosen = choose(listing)
    if choose_container(chosen) is None and not is_adapter(chosen):
        raise ModelNotFound(
            f"{target.label} at {target.endpoint} holds no checkpoint: expected one of model.safetensors, pytorch_model.bin, "
            f"their sharded forms, or an adapter_config.json; found {', '.join(sorted(listing)[:8]) or 'no files'}.",
            field="model",
        )
    paths = []
    for name in chosen:
        if name.endswith(_LARGE):
            _fetch_resumable(target, commit, name)
        paths.append(_fetch_small(target, commit, name))
    folder = paths[0].parent
    # The revision's commit is written last, so that an interrupted download never looks like a complete one.
    reference = target.storage / "refs" / target.revision
    if not _COMMIT.fullmatch(target.revision) and (not reference.is_file() or reference.read_text(encoding="utf-8") != folder.name):
        reference.parent.mkdir(parents=True, exist_ok=True)
        reference.write_text(folder.name, encoding="utf-8")
    return folder


def _fetch_resumable(target: _Target, commit: str, name: str) -> None:
    """Download one file of weights to the cache's blobs, resuming an earlier attempt.

    The hub's client resumes within one call only, and deletes an interrupted download. Here received bytes are kept in a partial
    file beside the blob. Afterwards the client finds the complete blob and links it into the revision's folder.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.utils import WeakFileLock

    if (target.storage / "snapshots" / commit / name).exists():
        return
    url = hf_hub_url(target.repository, name, revision=commit, endpoint=target.endpoint)
    metadata = get_hf_file_metadata(url, endpoint=target.endpoint)
    if metadata.etag is None or metadata.size is None:
        return
    blob = target.storage / "blobs" / metadata.etag
    partial = blob.with_name(f"{blob.name}.florence2-partial")
    lock = target.cache / ".locks" / target.storage.name / f"{blob.name}.florence2.lock"
    for needed in (blob, lock):
        needed.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if blob.exists():
            return
        _fill(partial, url, metadata.size, f"{name} of {target.label}", xet_file(metadata))
        if not is_whole(partial, metadata.etag):
            partial.unlink()
            raise _damaged(target, name)
        os.replace(partial, blob)


def _fetch_small(target: _Target, commit: str, name: str) -> Path:
    """The path of one file after a download by the hub's client, which checks its size only; a new file's digest is checked here."""
    from huggingface_hub import hf_hub_download

    was_here = (target.storage / "snapshots" / commit / name).exists()
    path = Path(hf_hub_download(target.repository, name, revision=commit, endpoint=target.endpoint, cache_dir=target.cache))
    blob = path.resolve()  # the cache names a blob by its ETag
    if not was_here and not name.endswith(_LARGE) and not is_whole(blob, blob.name):
        path.unlink()
        blob.unlink(missing_ok=True)
        raise _damaged(target, name)
    return path


def _damaged(target: _Target, name: str) -> DownloadError:
    return DownloadError(f"{name} of {target.label} arrived damaged and was thrown away. Try again.", field="model")


def _fill(partial: Path, url: str, size_bytes: int, what: str, xet: XetFileData | None) -> None:
    """Append to a partial file until it is complete, first from Xet if the file is stored there.

    Raises:
        DownloadError: the disk is full, or several connections in a row brought no bytes.
    """
    from huggingface_hub.utils import tqdm

    had_bytes = partial.stat().st_size if partial.exists() else 0
    if had_bytes > size_bytes:
        partial.unlink()
        had_bytes = 0
    _check_space(what, partial.parent, size_bytes - had_bytes)
    logger.info("fetching %s, %.1f of %.1f MB are here", what, had_bytes / 1e6, size_bytes / 1e6)
    num_failures = 0
    # disable=None: the bar is shown on terminals only.
    with tqdm(total=size_bytes, initial=had_bytes, unit="B", unit_scale=True, desc=what, disable=None) as bar:
        if xet is not None and had_bytes < size_bytes:
            append_by_xet(partial, xet, size_bytes, bar.update)
            had_bytes = partial.stat().st_size
        while had_bytes < size_bytes or not partial.exists():
            reason = _append(partial, url, bar.update)
            now_bytes = partial.stat().st_size
            num_failures = 0 if now_bytes > had_bytes else num_failures + 1
            had_bytes = now_bytes
            if reason is None and had_bytes == size_bytes:
                break
            if num_failures >= MAX_FAILURES or had_bytes > size_bytes:
                raise DownloadError(
                    f"{what} broke off after {had_bytes / 1e6:.1f} of {size_bytes / 1e6:.1f} MB ({reason or 'wrong size'}). "
                    "Try again: what has arrived is kept and the download goes on from there.",
                    field="model",
                )
            logger.warning("%s broke off after %.1f MB (%s), going on", what, had_bytes / 1e6, reason)
            time.sleep(RETRY_DELAY_S)


def _append(partial: Path, url: str, advance: Callable[[int], object]) -> str | None:
    """Append the bytes of one connection. Returns the reason why it ended early; None if it did not."""
    from huggingface_hub import constants, get_session
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    start = partial.stat().st_size if partial.exists() else 0
    headers = {**build_hf_headers(), "Accept-Encoding": "identity", **({"Range": f"bytes={start}-"} if start else {})}
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    try:
        with get_session().stream("GET", url, headers=headers, follow_redirects=True, timeout=timeout) as response:
            if response.status_code in _TRANSIENT:
                return f"HTTP {response.status_code}"
            if response.status_code == 416:
                partial.unlink()
                advance(-start)
                return "the part that was here does not fit"
            hf_raise_for_status(response)
            if start and response.status_code != 206:
                advance(-start)
                start = 0
            with partial.open("ab" if start else "wb") as file:
                for chunk in response.iter_raw():
                    file.write(chunk)
                    advance(len(chunk))
    except _transport_errors() as error:
        return f"{type(error).__name__}: {error}"
    return None


def _check_space(what: str, folder: Path, needed_bytes: int) -> None:
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise DownloadError(
            f"{what} needs {needed_bytes / 1e6:.0f} MB more, {folder} has {free_bytes / 1e6:.0f} MB free. "
            "Free some space or point HF_HUB_CACHE at another disk.",
            field="model",
        )


@contextmanager
def _translated(target: _Target) -> Iterator[None]:
    """Translate the errors of the hub's client to those of this package."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    where = f"at {target.endpoint}"
    try:
        yield
    except Florence2Error:
        raise
    except GatedRepoError as error:
        raise ModelNotFound(
            f"{target.label} {where} is gated: accept its terms on its page, then set HF_TOKEN to a token of that account.", field="model"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelNotFound(
            f"{target.repository} {where} has no revision {target.revision!r}: give a branch, a tag or a full commit.", field="model"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelNotFound(
            f"There is no repository {target.repository} {where} that can be seen {_access()}, nor a folder of that name here. "
            "Check the spelling; a private one needs HF_TOKEN.",
            field="model",
        ) from error
    except HFValidationError as error:
        raise ModelNotFound(f"{target.label} is no valid hub id (owner/name): {error}", field="model") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise ModelNotFound(
                f"The hub {where} refused {target.label} {_access()} (HTTP {status}). Check that HF_TOKEN is valid and may read it.",
                field="model",
            ) from error
        raise DownloadError(
            f"The hub {where} answered HTTP {status} for {target.label}. Try again later; what has arrived is kept.", field="model"
        ) from error
    except OSError as error:
        if isinstance(error, (*_transport_errors(), ConnectionError, TimeoutError, socket.gaierror, ssl.SSLError)):
            raise _unreachable(target, error) from error
        raise unwritable(target.label, target.cache, error) from error
    except _transport_errors() as error:
        raise _unreachable(target, error) from error


def _unreachable(target: _Target, error: Exception) -> DownloadError:
    proxy = proxy_for(target.endpoint)
    by, check = (f" by the proxy {proxy}", "that proxy") if proxy else ("", "proxy")
    hint = certificate_hint(error)
    advice = f"{hint[0].upper()}{hint[1:]}" if hint else f"Check the network, {check} and HF_ENDPOINT"
    return DownloadError(
        f"{target.label} could not be fetched from {target.endpoint}{by} ({type(error).__name__}: {str(error)[:120]}). {advice}, "
        "then try again: what has arrived is kept and the download goes on from there.",
        field="model",
    )


def _transport_errors() -> tuple[type[Exception], ...]:
    """The base class of the errors of the hub client's HTTP library, which depends on the client's version."""
    from huggingface_hub.errors import HfHubHTTPError

    return tuple(base for base in HfHubHTTPError.__bases__ if base is not OSError and issubclass(base, Exception))


def _access() -> str:
    from huggingface_hub import get_token

    return "with the token given" if get_token() else "without a token"
