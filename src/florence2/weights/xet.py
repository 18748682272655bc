"""Downloads from the hub's Xet storage, which sends a file in chunks over several connections.

In: a partial file and the hub's metadata of it. Out: the partial file with all received bytes appended in order, so that plain HTTPS can
continue from there. Knows nothing of the cache or of digests.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from huggingface_hub import HfFileMetadata
    from huggingface_hub.utils import XetFileData

logger = logging.getLogger(__name__)

MAX_SILENCE_S = 60.0
_LOOK_EVERY_S = 0.2
_MB = 10**6
# The library's defaults wait minutes for a storage that the network blocks, and buffer some gigabytes in memory.
_SETTINGS: dict[str, Any] = {
    "client.connect_timeout": "10s",
    "client.read_timeout": "60s",
    "client.retry_base_delay": "500ms",
    "client.retry_max_attempts": 3,
    "client.retry_max_duration": "30s",
    "reconstruction.min_reconstruction_fetch_size": 32 * _MB,
    "reconstruction.max_reconstruction_fetch_size": 128 * _MB,
    "reconstruction.download_buffer_perfile_size": 64 * _MB,
    "reconstruction.download_buffer_size": 128 * _MB,
    "reconstruction.download_buffer_limit": 256 * _MB,
    "reconstruction.min_prefetch_buffer": 32 * _MB,
}


class XetFailed(Exception):
    """The reason why Xet sends no more bytes."""


def xet_file(metadata: HfFileMetadata) -> XetFileData | None:
    """The file's Xet data; None if it is not in Xet, or if ``hf_xet`` is missing or switched off (``HF_HUB_DISABLE_XET``)."""
    is_off = os.environ.get("HF_HUB_DISABLE_XET", "").upper() in ("1", "ON", "YES", "TRUE")
    return metadata.xet_file_data if not is_off and importlib.util.find_spec("hf_xet") is not None else None


def append_by_xet(partial: Path, file: XetFileData, size_bytes: int, advance: Callable[[int], object]) -> None:
    """Append the missing bytes of a file, as many as Xet sends. A failure of Xet is logged and not raised."""
    start = partial.stat().st_size if partial.exists() else 0
    try:
        with partial.open("ab") as written:
            for chunk in _chunks(file, size_bytes, start):
                written.write(chunk)
                advance(len(chunk))
    except XetFailed as error:
        logger.info("Xet brought %.1f MB (%s); the rest comes over HTTPS", (partial.stat().st_size - start) / 1e6, error)


def _chunks(file: XetFileData, size_bytes: int, start: int) -> Iterator[bytes]:
    """The bytes from offset ``start`` on, in order.

    The library may wait without a time limit and without handling Ctrl-C. So it runs in a thread of its own, which is abandoned when this
    generator ends.

    Raises:
        XetFailed: Xet sends no more bytes, for any reason.
    """
    arrived: queue.Queue[bytes | Exception | None] = queue.Queue(maxsize=2)
    left = threading.Event()

    def hand_over(item: bytes | Exception | None) -> None:
        while not left.is_set():
            try:
                arrived.put(item, timeout=_LOOK_EVERY_S)
            except queue.Full:
                continue
            break

    def bring() -> None:
        try:
            for chunk in _stream(file, size_bytes, start, left):
                hand_over(bytes(chunk))
            hand_over(None)
        except Exception as error:
            hand_over(error)

    threading.Thread(target=bring, name="florence2-xet", daemon=True).start()
    num_bytes = start
    try:
        while (item := _next(arrived)) is not None:
            if isinstance(item, Exception):
                raise XetFailed(f"{type(item).__name__}: {str(item)[:200]}") from item
            num_bytes += len(item)
            yield item
    finally:
        left.set()
    if num_bytes < size_bytes:  # its streams may end without an error
        raise XetFailed("it ended early")


def _next(arrived: queue.Queue[bytes | Exception | None]) -> bytes | Exception | None:
    for _ in range(round(MAX_SILENCE_S / _LOOK_EVERY_S)):
        with suppress(queue.Empty):
            return arrived.get(timeout=_LOOK_EVERY_S)  # short: on some systems Ctrl-C is handled only between two calls
    raise XetFailed(f"nothing came for {MAX_SILENCE_S:g} s")


def _session() -> Any:
    library: Any = importlib.import_module("hf_xet")
    config = library.XetConfig()
    known = set(config.keys())
    return library.XetSession(config.with_config({name: value for name, value in _SETTINGS.items() if name in known}))


def _stream(file: XetFileData, size_bytes: int, start: int, left: threading.Event) -> Iterator[bytes]:
    from huggingface_hub.utils import build_hf_headers
    from huggingface_hub.utils._xet import refresh_xet_connection_info, xet_headers_without_auth

    library: Any = importlib.import_module("hf_xet")
    headers = build_hf_headers()
    storage = refresh_xet_connection_info(file_data=file, headers=headers)
    group = _session().new_download_stream_group(
        endpoint=storage.endpoint,
        token=storage.access_token,
        token_expiry_unix_secs=storage.expiration_unix_epoch,
        token_refresh_url=file.refresh_route,
        token_refresh_headers=headers,
        custom_headers=xet_headers_without_auth(headers),
    )
    for chunk in group.download_stream(library.XetFileInfo(file.file_hash, size_bytes), start, size_bytes):
        if left.is_set():
            break
        yield chunk
    group.abort()
