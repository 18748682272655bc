"""Labelling on a real Ray: runs that go on with each other's, whoever is killed, with each picture once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from florence2.errors import InvalidOption, InvalidRequest
from florence2.labelling.options import LabelOptions
from florence2.labelling.parts import parts_in
from florence2.labelling.records import Records
from florence2.labelling.run import BrokenPicture, label
from florence2.openmp import SPIN, SPIN_COUNT
from tests.cluster import scripted
from tests.labelling.standing_in import OD, StandIn, draw_pictures, run
from tests.waiting import wait_until

ray = pytest.importorskip("ray", reason="Ray has no wheel for this Python and system; the cluster is not tested")

from ray.data import DataContext  # noqa: E402 - needs Ray

from florence2.cluster import labelling, pipeline  # noqa: E402 - needs Ray

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
DRIVER = """
import sys
from functools import partial
from pathlib import Path
from florence2.cluster import labelling, pipeline
from florence2.labelling.options import LabelOptions
from tests.cluster import scripted

if __name__ == "__main__":
    photos, output, log = map(Path, sys.argv[1:])
    pipeline.NUM_RECORDS = 32
    labelling.load_model = partial(scripted.load, log, 0.5)
    labelling.label_on_ray(photos, output, LabelOptions(tasks=("od",)), model="florence-2-demo")
"""


@pytest.fixture(scope="module", autouse=True)
def workers_know_the_script(on_ray: None) -> None:
    from ray import cloudpickle

    from fixtures import fake_engine

    for module in (scripted, fake_engine):
        cloudpickle.register_pickle_by_value(module)


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Workers with a model that answers soon; the file in which it notes what it is asked."""
    monkeypatch.setattr(labelling, "load_model", partial(scripted.load, tmp_path / "log", 0.02))
    return tmp_path / "log"


def label_on_ray(photos: Any, output: Path | str, options: LabelOptions = OD, **more: Any) -> Any:
    return labelling.label_on_ray(photos, output, options, model="florence-2-demo", **more)


def test_each_kind_of_run_goes_on_with_the_others_and_failures_are_rows(tmp_path: Path, answering: Path):
    photos = draw_pictures(tmp_path / "photos", 60)
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0nothing")
    (photos / "notes.txt").write_text("none")
    Image.new("RGB", (scripted.DEADLY_ONCE, 16)).save(photos / "0030x.png")
    (tmp_path / "list.txt").write_text(f"{tmp_path}/gone.png\nlocal://{photos}/0007.png\n")
    model = StandIn()
    model.checkpoint.folder = Path("florence-2-demo")
    assert run(photos, tmp_path / "out", model, limit=10).num_pictures == 10
    said: list[str] = []
    done: list[tuple[int, int | None, int]] = []
    summary = label_on_ray(
        photos, tmp_path / "out", lists=[str(tmp_path / "list.txt")], on_message=said.append, on_progress=lambda *now: done.append(now)
    )
    assert (summary.num_pictures, summary.num_new, summary.num_problems) == (62, 52, 2)
    assert (tmp_path / SPIN).read_text() == SPIN_COUNT  # in the engine's process, before it began
    assert done[-1] == (54, 54, 2)
    assert any("left out 1 file that is no picture" in line for line in said)
    problems = {json.loads(line)["id"]: json.loads(line)["code"] for line in (tmp_path / "out/problems.jsonl").read_text().splitlines()}
    assert problems == {str(photos / "broken.jpg"): "invalid_image", f"{tmp_path}/gone.png": "invalid_image"}
    asked = [line.split()[2] for line in answering.read_text().splitlines()]
    assert asked.count(str(scripted.DEADLY_ONCE)) == 2  # its worker was lost, and another one asked again
    draw_pictures(photos, 2, first=60)
    model.asked.clear()
    assert run(photos, tmp_path / "out", model).num_new == 2
    assert model.widths == [80, 81]
    names = [record["id"] for record in Records(tmp_path / "out")]
    assert len(names) == len(set(names)) == 64


def test_a_driver_that_is_killed_loses_nothing_that_was_written_and_a_stop_ends_soon(
    tmp_path: Path, answering: Path, monkeypatch: pytest.MonkeyPatch
):
    photos = draw_pictures(tmp_path / "photos", 192)
    parts = tmp_path / "out" / ".florence2" / "parts"
    (tmp_path / "driver.py").write_text(DRIVER)
    command = [sys.executable, str(tmp_path / "driver.py"), str(photos), str(tmp_path / "out"), str(answering)]
    path = {"PYTHONPATH": ":".join([str(Path(labelling.__file__).parents[2]), str(Path(__file__).parents[2])])}
    with (
        (tmp_path / "driver.log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **path}) as driver,
    ):
        while len(list(parts.glob("*.parquet"))) < 2:
            assert driver.poll() is None, (tmp_path / "driver.log").read_text()
            time.sleep(0.1)
        driver.send_signal(signal.SIGKILL)
    before = len(Records(tmp_path / "out"))
    assert 64 <= before < 192
    time.sleep(1)  # its workers end
    kept = len(Records(tmp_path / "out"))
    answering.unlink()

    def asked() -> list[str]:
        return [line.split()[2] for line in answering.read_text().splitlines()] if answering.exists() else []

    monkeypatch.setattr(labelling, "load_model", partial(scripted.load, answering, 0.5))
    summary = label_on_ray(photos, tmp_path / "out", is_to_stop=lambda: len(asked()) > 16)
    assert summary.is_stopped
    assert kept < summary.num_pictures < 192
    assert len(asked()) == len(set(asked())) >= summary.num_pictures - kept
    model = StandIn()
    model.checkpoint.folder = Path("florence-2-demo")
    assert run(photos, tmp_path / "out", model).num_pictures == 192
    assert not set(model.widths) & set(map(int, asked()))
    names = [record["id"] for record in Records(tmp_path / "out")]
    assert len(names) == len(set(names)) == 192


def test_the_demo_model_writes_into_a_store(tmp_path: Path):
    import numpy as np

    from florence2.scenes.scene import draw_scene

    (tmp_path / "photos").mkdir()
    for number in range(2):
        draw_scene(np.random.default_rng([3, number]), size=96).image.save(tmp_path / "photos" / f"{number}.png")
    options = LabelOptions(tasks=("caption",), num_beams=1, max_new_tokens=4)
    store = f"local://{tmp_path}/store"
    summary = label_on_ray(f"local://{tmp_path}/photos", store, options)
    assert (summary.folder, summary.num_pictures, summary.num_new) == (store, 2, 2)
    parts = parts_in(store)
    (name,) = parts.names()
    records = [record for _, record in parts.records(name)]
    assert sorted(record["url"] for record in records) == [f"local://{tmp_path}/photos/{number}.png" for number in range(2)]
    assert all(record["answers"][0]["text"] and record["file"] is None and record["size"] == [96, 96] for record in records)
    assert label_on_ray(f"local://{tmp_path}/photos", store, options).num_new == 0


@pytest.mark.parametrize("leaving", [0, 0.75], ids=["nothing is free", "an engine has room, and reading for it none"])
def test_a_run_that_waits_for_room_says_so_and_can_be_stopped(tmp_path: Path, answering: Path, leaving: float):
    from ray.util import placement_group, remove_placement_group

    photos, said, groups = draw_pictures(tmp_path / "photos", 2), [], []
    left = leaving * ray.cluster_resources()["CPU"]

    def free() -> float:
        return round(ray.available_resources().get("CPU", 0) - left, 3)

    def take() -> None:
        """All but that: a server on the cluster has its own, and earlier tests may give theirs back late."""
        if (more := free()) > 0:
            groups.append(placement_group([{"CPU": more}]))
            assert groups[-1].wait(30)
            wait_until(lambda: free() < more, 30)

    try:
        for _ in range(4):
            take()
            time.sleep(0.5)
        summary = label_on_ray(photos, tmp_path / "out", on_message=said.append, is_to_stop=lambda: bool(said))
    finally:
        for group in groups:
            remove_placement_group(group)
    # What waited gets room now and does nothing with it; Ray may not end before that.
    wait_until(lambda: all(thread.name != "florence2-ray" for thread in threading.enumerate()), 60)
    assert (summary.is_stopped, summary.num_pictures) == (True, 0)
    assert any("processor cores are taken" in line for line in said)
    assert not answering.exists()


def test_a_strict_run_ends_at_its_first_broken_picture(tmp_path: Path, answering: Path):
    photos = draw_pictures(tmp_path / "photos", 2)
    (photos / "0000.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(BrokenPicture, match=r"0000\.png"):
        label_on_ray(photos, tmp_path / "out", strict=True)


def test_what_does_not_go_together_is_refused_before_anything_begins(tmp_path: Path):
    photos = draw_pictures(tmp_path / "photos", 1)
    for more, said in (
        ({"output": f"local://{tmp_path}/x", "options": LabelOptions(tasks=("od",), formats=("coco",))}, "object store holds parts"),
        ({"output": f"local://{tmp_path}/x", "preview": True}, "preview="),
        ({"output": tmp_path / "x", "engines": 0}, "engines must be at least 1"),
        ({"output": tmp_path / "x", "engine": StandIn()}, "address of a server"),
        ({"output": tmp_path / "x", "address": "auto"}, "connected to a cluster already"),
        ({"output": tmp_path / "x", "device": "cuda"}, "no GPU"),
    ):
        with pytest.raises(InvalidOption, match=said):
            label_on_ray(photos, **more)
    with pytest.raises(InvalidRequest, match="there is no file"):
        label_on_ray(str(tmp_path / "gone.png"), tmp_path / "x")
    with pytest.raises(InvalidOption, match="with --ray"):
        label(photos, "s3://bucket/run", OD)
    assert pipeline.num_writers(9) == 2


def test_what_the_user_has_chosen_for_threads_that_wait_stays(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert pipeline._soon_asleep() == {}


def test_ray_data_has_its_settings_back():
    before = vars(DataContext.get_current()).copy()
    with pipeline.connected(None):
        assert DataContext.get_current().memory_usage_poll_interval_s is None
    assert vars(DataContext.get_current()) == before
