"""Data sets of scenes."""

from __future__ import annotations

import pytest

from florence2.data_sources import read_source
from florence2.errors import DatasetError
from florence2.scenes.synthetic import FIRST_FREE_SEED, ScenePicture
from florence2.tasks import TASKS


def test_scenes_ask_all_tasks_and_know_their_boxes():
    data = read_source("synthetic:6?seed=4&objects=2-3&words=1", limit=5)
    records = data.sound()
    assert {record.tag for record in records} == set(TASKS)
    assert len({record.picture for record in records}) == 5
    for record in records:
        assert isinstance(record.picture, ScenePicture)
        if record.tag == "<OD>":
            scene = record.picture.draw()[0]
            assert sorted(record.truth.boxes) == sorted(tuple(thing.box) for thing in scene.objects)
    again = read_source("synthetic:2?seed=4&objects=2-3&words=1&tasks=OD,caption")
    assert [record.answers for record in again.sound()] == [one.answers for one in records if one.tag in ("<OD>", "<CAPTION>")][:4]


def test_new_kinds_are_drawn_where_they_are_asked_for():
    records = read_source("synthetic:5?kinds=arrow&tasks=OD").sound()
    assert all(label.endswith(" arrow") for record in records for label in record.truth.labels)


def test_scenes_that_were_learnt_from_are_not_measured_on():
    with pytest.raises(DatasetError, match="seeds of at least"):
        read_source("synthetic:5?seed=3", for_training=False)
    assert isinstance(picture := read_source("synthetic:1", for_training=False).sound()[0].picture, ScenePicture)
    assert picture.seed == FIRST_FREE_SEED
