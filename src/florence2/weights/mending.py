"""Files of the hub's cache that are damaged: found by their digests, and thrown away, so that they are fetched again.

In: a folder of a checkpoint. Out: whether anything of it was thrown away. A folder that is not of the cache is never touched.
"""

from __future__ import annotations

import logging
from pathlib import Path

from florence2.weights.cache import is_whole

logger = logging.getLogger(__name__)


def discard_damaged(folder: Path) -> list[str]:
    """Remove the files of a revision in the hub's cache that are not what the hub has; a file's blob is named by its digest.

    Returns:
        The names of what was removed; empty for a folder elsewhere.
    """
    storage = folder.parent.parent
    if folder.parent.name != "snapshots" or not storage.name.startswith("models--") or not (storage / "blobs").is_dir():
        return []
    removed = []
    for path in sorted(path for path in folder.rglob("*") if path.is_symlink()):
        blob = path.resolve()
        if blob.parent != (storage / "blobs").resolve() or (blob.is_file() and is_whole(blob, blob.name)):
            continue
        path.unlink()
        blob.unlink(missing_ok=True)
        removed.append(path.relative_to(folder).as_posix())
    if removed:
        logger.warning("damaged in the hub's cache, and thrown away to be fetched again: %s of %s", ", ".join(removed), folder)
    return removed
