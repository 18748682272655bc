"""Writers of data sets: labelled pictures in, the files of one format out, in a folder of their own.

``FORMATS`` has a writer for each format. A writer takes a ``LabelledSet``, a folder that is new and empty, and ``WriteOptions``; it gives
``Written``. It goes over the pictures one at a time, and writes the same files for the same set, byte for byte.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping

from florence2.datasets.writers import coco, csv_tables, cvat, jsonl, label_studio, parquet, sidecar, voc, webdataset, yolo
from florence2.datasets.writers.written import ImagePlacing, WriteOptions, Writer, Written
from florence2.extras import requires

__all__ = ["FORMATS", "ImagePlacing", "WriteOptions", "Writer", "Written", "check_installed"]

FORMATS: Mapping[str, Writer] = {
    "coco": coco.write,
    "yolo": yolo.write,
    "voc": voc.write,
    "label-studio": label_studio.write,
    "cvat": cvat.write,
    "jsonl": jsonl.write,
    "parquet": parquet.write,
    "csv": csv_tables.write,
    "sidecar": sidecar.write,
    "webdataset": webdataset.write,
}
"""The writer of each format, by the name that users know it by."""


def check_installed(formats: Iterable[str]) -> None:
    """Refuse formats whose packages are not installed, before anything long begins.

    Raises:
        MissingExtra: one of them is not.
    """
    if "parquet" in formats:
        with requires("parquet", "the format parquet"):
            importlib.import_module("pyarrow.parquet")
