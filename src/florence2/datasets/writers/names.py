"""Names of files in data sets, which have to work on other systems than the one that they were made on.

In: the name of a labelled picture. Out: a name that Linux, macOS and Windows take, with folders or in one folder. A name that is fine
stays as it is; one that had to be changed ends with a digest of what it was, so that no two become the same. Opens no file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import PurePosixPath

from florence2.datasets.labelled import LabelledSet

LONGEST_NAME_BYTES = 240  # 255 on all usual file systems, less what writers and their users put behind it
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f-\x9f<>:"|?*\\\u2028\u2029\ud800-\udfff\ufffe\uffff]')
_RESERVED = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9\u00b9\u00b2\u00b3])(\..*)?", re.IGNORECASE)
_JOINT = "__"


def portable_name(name: str) -> str:
    """The name, its parts such that every usual file system takes them."""
    parts = [_portable_part(part) for part in name.split("/") if part]
    changed = "/".join(parts)
    return changed if changed == name and all(map(_fits, parts)) else _with_digest(changed or "_", name)


def flat_names(data: LabelledSet) -> Callable[[str], str]:
    """What gives each picture's name without folders: ``a/b.jpg`` is ``a__b.jpg``.

    Where that could be the name of another picture too, because there are underscores at the joint, a digest tells them apart.
    """
    has_folders = any("/" in picture.name for picture in data.pictures())

    def flat(name: str) -> str:
        portable = portable_name(name)
        path = PurePosixPath(portable)
        parts = [*path.parts[:-1], path.stem]
        joined = _JOINT.join(parts)
        is_clear = not has_folders or joined.split(_JOINT) == parts
        whole = joined + path.suffix
        return whole if is_clear and _fits(whole) else _with_digest(whole, name)

    return flat


def with_suffix(name: str, suffix: str) -> str:
    """The name with another suffix, or with one where it has none."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + (PurePosixPath(last).stem if last.strip(".") else last) + suffix


def _portable_part(part: str) -> str:
    part = _FORBIDDEN.sub("_", part)
    kept = part.rstrip(". ")
    part = kept + "_" * (len(part) - len(kept))
    return f"_{part}" if _RESERVED.fullmatch(part) else part


def _fits(part: str) -> bool:
    return len(part.encode()) <= LONGEST_NAME_BYTES


def _with_digest(changed: str, name: str) -> str:
    """The changed name, each part cut to what fits, and a digest of the whole one behind its stem."""
    digest = "-" + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    path = PurePosixPath(changed)
    folders = [_cut(part, LONGEST_NAME_BYTES) for part in path.parts[:-1]]
    suffix = _cut(path.suffix, 20)
    return "/".join([*folders, _cut(path.stem, LONGEST_NAME_BYTES - len(digest) - len(suffix.encode())) + digest + suffix])


def _cut(text: str, num_bytes: int) -> str:
    return text.encode()[:num_bytes].decode(errors="ignore")
