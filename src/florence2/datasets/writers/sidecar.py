"""A text file beside each picture, as trainers of image models read captions.

In: a labelled set. Out: ``a.txt`` beside ``a.jpg``, and ``metadata.jsonl`` with the same, which Hugging Face's ``imagefolder`` reads. Where
pictures are left, texts are written beside the originals, and ``written.jsonl`` keeps which: a text that was there before, or that was
changed since, is never overwritten. All parts of the data set lie together, because such trainers hold nothing out.
"""

from __future__ import annotations

from pathlib import Path

from florence2.datasets.labelled import LabelledPicture, LabelledSet
from florence2.datasets.writers.captions import caption_of
from florence2.datasets.writers.entries import Entries
from florence2.datasets.writers.json_writing import to_json
from florence2.datasets.writers.names import portable_name, with_suffix
from florence2.datasets.writers.original_texts import WRITTEN, OriginalTexts
from florence2.datasets.writers.written import WriteOptions, Written

METADATA = "metadata.jsonl"
EMPTY = "pictures have an empty text, because nothing was said of them and nothing found"


def write(data: LabelledSet, folder: Path, options: WriteOptions) -> Written:
    """Write a text for each picture, and return what was written."""
    if options.images == "leave":
        return _beside_originals(data, folder, options)
    entries = Entries(data, folder, options)
    with (folder / METADATA).open("wb") as metadata:
        for entry in entries.placed(lambda picture: portable_name(picture.name)):
            text = _text(entry.picture, entries)
            (folder / with_suffix(entry.file, ".txt")).write_bytes(text.encode("utf-8", "replace"))
            metadata.write(f"{to_json({'file_name': entry.file, 'text': text})}\n".encode())
    return entries.written()


def _beside_originals(data: LabelledSet, folder: Path, options: WriteOptions) -> Written:
    """Write texts where the pictures are, and which they are into the folder."""
    entries = Entries(data, folder, options)
    texts = OriginalTexts(data, (options.home or folder) / WRITTEN)
    with (folder / WRITTEN).open("wb") as written:

        def put(picture: LabelledPicture) -> str:
            record = texts.write(picture, _text(picture, entries).encode("utf-8", "replace"))
            written.write(f"{to_json(record)}\n".encode())
            return record["file"]

        for _ in entries.by(put):
            pass
    return entries.written()


def _text(picture: LabelledPicture, entries: Entries) -> str:
    text = caption_of(picture)
    if not text:
        entries.notices.add(EMPTY, picture.name)
    return text
