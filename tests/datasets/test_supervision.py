"""Data sets as ``supervision`` writes them, and with it autodistill."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from florence2.datasets.reader import read_dataset
from tests.datasets.writers.quiet_supervision import supervision
from tests.training.sets import write_pictures

CLASSES = ["cat", "traffic light"]
BOXES = np.array([[8.0, 6.0, 40.0, 30.0], [0.0, 0.0, 80.0, 60.0]])


def dataset(folder: Path):
    names = [str(folder / name) for name in write_pictures(folder, 2)]
    found = supervision.Detections(xyxy=BOXES, class_id=np.array([1, 0]))
    annotations = {names[0]: found, names[1]: supervision.Detections.empty()}
    return supervision.DetectionDataset(classes=CLASSES, images=names, annotations=annotations)


def as_yolo(data, home: Path) -> None:
    data.as_yolo(str(home / "images"), str(home / "labels"), str(home / "data.yaml"))


def as_coco(data, home: Path) -> None:
    data.as_coco(str(home / "images"), str(home / "annotations.json"))


def as_pascal_voc(data, home: Path) -> None:
    data.as_pascal_voc(str(home / "images"), str(home / "annotations"))


@pytest.mark.parametrize(("write", "near"), [(as_yolo, 1e-3), (as_coco, 1e-6), (as_pascal_voc, 1)])
def test_it_is_read(tmp_path: Path, write, near):
    write(dataset(tmp_path / "pictures"), tmp_path / "set")
    records = {Path(str(record.picture)).name: record for record in read_dataset(str(tmp_path / "set")).sound()}
    truth = records["0.png"].truth
    assert truth.labels == ("cat", "traffic light")
    np.testing.assert_allclose(truth.boxes, BOXES[::-1], atol=near)
    assert records["1.png"].truth.labels == ()
