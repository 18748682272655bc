"""A labelled set with everything that writers must cope with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from florence2.datasets.labelled import LabelledPicture, LabelledSet
from tests.datasets.writers.labelled_sets import CLASSES, labelled_set, picture_bytes, thing


@pytest.fixture
def make_picture(tmp_path: Path):
    """What makes a labelled picture and its file in a folder of originals."""
    number = iter(range(1000))

    def make(name="a.png", *, size=(64, 48), form="PNG", orientation=1, file_name="", **fields) -> LabelledPicture:
        file = tmp_path / "originals" / (file_name or f"{next(number)}.{form.lower()}")
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(picture_bytes(size, form, orientation, seed=len(name)))
        return LabelledPicture(name, file, size, **{"where": f"originals/{name}", **fields})

    return make


@pytest.fixture
def pictures(make_picture) -> list[LabelledPicture]:
    """Boxes, outlines, texts and examples; nothing; odd names; a part that is held out."""
    outline = (10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0)
    hole = (40.0, 20.0, 50.0, 20.0, 45.0, 30.0)
    example = ("<OD>", "car<loc_125><loc_125><loc_625><loc_625>")
    return [
        make_picture(
            "street/one car.jpg",
            form="JPEG",
            objects=(thing(score=0.75, task="<OD>"), thing(CLASSES[1], (0.0, 0.0, 64.0, 48.0), text='STOP, = "x"', task="<OCR>")),
            texts={"<CAPTION>": "a car\nin the street", "<MORE_DETAILED_CAPTION>": "=a red car, <b>"},
            examples=(example, ("<CAPTION>", "a car in the street")),
        ),
        make_picture("street__größe 'ü'.png", objects=(thing(CLASSES[2], (10.0, 10.0, 50.0, 30.0), polygons=(outline, hole), score=0.5),)),
        make_picture("-empty.png"),
        make_picture(
            "held/out.png", objects=(thing(polygons=(outline,)),), texts={"<CAPTION>": "held out"}, examples=(example,), split="val"
        ),
    ]


@pytest.fixture
def data(pictures) -> LabelledSet:
    """The same as a set."""
    return labelled_set(pictures)


@pytest.fixture
def outlined(pictures) -> LabelledSet:
    """The same, every object with an outline."""
    corners = (8.0, 6.0, 40.0, 6.0, 40.0, 30.0)
    shaped = [replace(one, objects=tuple(replace(each, polygons=each.polygons or (corners,)) for each in one.objects)) for one in pictures]
    return labelled_set(shaped)


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A new, empty folder."""
    folder = tmp_path / "written"
    folder.mkdir()
    return folder


@pytest.fixture
def load_dataset(tmp_path: Path, monkeypatch):
    """Hugging Face's ``load_dataset``, without a network and with a cache of its own."""
    import datasets
    from datasets import config

    monkeypatch.setattr(config, "HF_DATASETS_OFFLINE", True)
    datasets.disable_progress_bars()

    def load(*words, **more):
        return datasets.load_dataset(*words, cache_dir=str(tmp_path / "cache"), **more)

    return load
