"""The page on labelling, with drawn scenes and the demo model: its lines run one after the other, and each works on what came before."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from florence2.datasets.reader import read_dataset
from florence2.labelling.records import Records
from florence2.scenes.scene import draw_scene
from florence2.scenes.world import IMAGE_SIZE, world_options
from tests.docs.markdown import ROOT, fences
from tests.server.process import running_server
from tests.training.sets import command

PAGE = (ROOT / "docs" / "label.md").read_text(encoding="utf-8")
NUM_PICTURES = 6
CLASSES = "circle, square, triangle"
OPTIONS = world_options((2, 3), (0, 0), 0.3)  # no words, whose fonts are an extra


def lines() -> list[str]:
    return [line for fence in fences(PAGE) if fence.language == "sh" for line in fence.content.splitlines()]


def in_small(line: str, server: str) -> list[str]:
    """A command line of the page for scenes, the demo model and one epoch."""
    line = re.sub(r"florence-2-\w+", "florence-2-demo", line.replace("http://localhost:9001", server))
    line = line.replace("forklift, pallet, person", CLASSES).replace("person=worker", "triangle=wedge")
    return shlex.split(re.sub(r"--epochs \d+", "--epochs 1 --batch-size 8", line))[1:]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for number in range(NUM_PICTURES):
        scene = draw_scene(np.random.default_rng([16, number]), size=IMAGE_SIZE, options=OPTIONS)
        scene.image.save(tmp_path / "photos" / f"{number}.png")
    (tmp_path / "list.txt").write_text("".join(f"photos/{number}.png\n" for number in range(2)))
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_tutorial_leads_from_a_folder_to_an_adapter(photos: Path):
    called = [line for line in lines() if line.startswith("florence2 ") and "--ray" not in line]  # those are tests/cluster's
    wanted = ["label", "view", "label", "train", "evaluate", "infer", "label", "label", "label", "label"]
    assert [line.split()[1] for line in called] == wanted
    with running_server(model=["florence-2-demo"]) as server:
        for line in called:
            if "florence2 view" not in line:  # test_commands.py starts it
                assert command(*in_small(line, server)) == 0, line
    categories = json.loads((photos / "labels/coco/train/_annotations.coco.json").read_text())["categories"]
    assert [one["name"] for one in categories] == ["circle", "square", "wedge"]
    learnt = [read_dataset(str(photos / "labels/jsonl" / part)) for part in ("train", "valid")]
    assert sum(len(data.records) for data in learnt) == NUM_PICTURES
    assert all(data.records for data in learnt)
    assert (
        {"circle", "square"}
        <= {label for data in learnt for one in data.records for label in one.truth.labels}
        <= {"circle", "square", "wedge"}
    )
    assert "<OD>" in json.loads((photos / "warehouse-after" / "evaluation.json").read_text())["figures"]
    assert (photos / "runs/warehouse/adapter/adapter_config.json").is_file()
    assert len(Records(photos / "from-server")) == NUM_PICTURES  # the server's model says nothing that could be learnt
    for folder, count in (("labels-2", NUM_PICTURES), ("shared", 2)):
        data = [read_dataset(str(part)) for part in (photos / folder / "jsonl").iterdir()]
        assert sum(len(one.records) for one in data) == count, folder
