"""Writers of data sets: labelled pictures in, the files of one format out, in a folder of their own.

``FORMATS`` has a writer for each format. A writer takes a ``LabelledSet``, a folder that is new and empty, and ``WriteOptions``; it gives
``Written``. It goes over the pictures one at a time, and writes the same files for the same set, byte for byte.
"""

from __future__ import annotations

from collections.abc import Mapping

from florence2.datasets.writers import coco, yolo
from florence2.datasets.writers.written import ImagePlacing, WriteOptions, Writer, Written

__all__ = ["FORMATS", "ImagePlacing", "WriteOptions", "Writer", "Written"]

FORMATS: Mapping[str, Writer] = {
    "coco": coco.write,
    "yolo": yolo.write,
}
"""The writer of each format, by the name that users know it by."""
