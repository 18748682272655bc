"""WebDataset shards: tar files with a picture, its labels and its caption for each sample.

In: a labelled set. Out: ``train-000000.tar``, ``valid-000000.tar``, … with ``000000000.jpg`` (or ``.png``, where all pictures are PNG),
``.json`` and ``.txt``. All samples have the same members, which readers take for granted. Headers hold no times and no owners. A card,
``README.md``, tells Hugging Face's ``datasets`` the types, which it would guess of five samples, and wrongly of empty lists.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from florence2.datasets.labelled import LabelledPicture, LabelledSet
from florence2.datasets.writers.captions import caption_of
from florence2.datasets.writers.entries import Entries
from florence2.datasets.writers.json_writing import to_json
from florence2.datasets.writers.placing import upright_file
from florence2.datasets.writers.rows import row_of
from florence2.datasets.writers.written import WriteOptions, Written
from florence2.image_files.png import SIGNATURE

CONVERTED = "pictures were written anew as JPEG, because all pictures of shards have one format"
LARGEST_SHARD_BYTES, MOST_SAMPLES = 2**29, 10_000
_CARD = """---
dataset_info:
  features:
  - {name: __key__, dtype: string}
  - {name: __url__, dtype: string}
  - {name: IMAGE, dtype: image}
  - {name: txt, dtype: string}
  - name: json
    struct:
    - {name: name, dtype: string}
    - {name: where, dtype: string}
    - {name: width, dtype: int32}
    - {name: height, dtype: int32}
    - name: objects
      list:
      - {name: label, dtype: string}
      - {name: class_id, dtype: int32}
      - {name: box, list: float64}
      - {name: polygons, list: {list: float64}}
      - {name: score, dtype: float64}
      - {name: text, dtype: string}
      - {name: task, dtype: string}
    - {name: texts, list: [{name: prompt, dtype: string}, {name: text, dtype: string}]}
    - {name: examples, list: [{name: prompt, dtype: string}, {name: answer, dtype: string}]}
---
WebDataset shards, labelled by florence2.
"""
_NAMES = {"train": "train", "val": "valid"}


class _Shards:
    """The shards of one part of the data set; a full one is closed and the next begun."""

    def __init__(self, folder: Path, part: str) -> None:
        self._folder, self._part = folder, part
        self._tar: tarfile.TarFile | None = None
        self._num_shards = self._num_samples = self._num_bytes = 0

    def add(self, key: str, members: dict[str, bytes]) -> None:
        """Write a sample."""
        size = sum(map(len, members.values()))
        if self._tar is None or self._num_samples == MOST_SAMPLES or self._num_bytes + size > LARGEST_SHARD_BYTES:
            self.close()
            path = self._folder / f"{self._part}-{self._num_shards:06d}.tar"
            self._tar = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
            self._num_shards, self._num_samples, self._num_bytes = self._num_shards + 1, 0, 0
        for suffix, content in members.items():
            about = tarfile.TarInfo(f"{key}{suffix}")
            about.size = len(content)
            self._tar.addfile(about, io.BytesIO(content))
        self._num_samples, self._num_bytes = self._num_samples + 1, self._num_bytes + size

    def close(self) -> None:
        """End the shard that is open."""
        if self._tar is not None:
            self._tar.close()


def write(data: LabelledSet, folder: Path, options: WriteOptions) -> Written:
    """Write a labelled set as shards, and return what was written."""
    entries = Entries(data, folder, options)
    form, suffix = ("PNG", ".png") if all(map(_is_png, data.pictures())) else ("JPEG", ".jpg")
    parts: dict[str, _Shards] = {}
    content = b""

    def read(picture: LabelledPicture) -> str:
        nonlocal content
        content = upright_file(picture, entries.notices, keep=(form,), form=form, converted=CONVERTED).content
        return picture.name

    try:
        for number, entry in enumerate(entries.by(read)):
            part = _NAMES[entry.picture.split]
            shards = parts.setdefault(part, _Shards(folder, part))
            labels = to_json(row_of(entry, options)).encode()
            caption = caption_of(entry.picture).encode("utf-8", "replace")
            shards.add(f"{number:09d}", {suffix: content, ".json": labels, ".txt": caption})
    finally:
        for shards in parts.values():
            shards.close()
    (folder / "README.md").write_text(_CARD.replace("IMAGE", suffix.removeprefix(".")), encoding="utf-8", newline="")
    return entries.written()


def _is_png(picture: LabelledPicture) -> bool:
    try:
        with picture.file.open("rb") as file:
            return file.read(len(SIGNATURE)) == SIGNATURE
    except OSError:  # it is left out later
        return True
