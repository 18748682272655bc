"""The released client against our server, and the same session with only the import changed to ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.compatibility import session
from tests.compatibility.session import CASES, LOCATED, NAMED

pytestmark = pytest.mark.timeout(900)  # the first run installs the client

WAYS = ("blocking", "awaited")
ANSWERED = [name for name, case in CASES.items() if case.method == "infer_lmm" and not name.startswith("list")]
# What our client encodes at another quality than the known one.
ENCODED_BY_THE_CLIENT = ("picture", "array")
REFUSED = {
    "no_prompt": (400, "prompt is missing"),
    "text_after_task": (400, "takes no text"),
    "missing_text": (400, "needs a text"),
    "unknown_model": (404, "florence-2-base"),
    "no_image": (400, "Could not load input image"),
    "wrong_key": (401, "Unauthorized api_key"),
    "no_key": (401, "Unauthorized api_key"),
    "load_unknown": (404, "florence-2-base"),
    "registry_no_key": (401, "Unauthorized api_key"),
}
# Where the two clients differ on purpose; each has a test of its own below.
BETTER = {"list_of_one", "missing_file", "info", "unload_legacy"}


def run_session(python: Path | str, package: str, server: str, folder: Path) -> dict[str, Any]:
    """What each case gives, on a server that has no model loaded yet."""
    httpx2.post(f"{server}/model/clear?api_key={session.KEY}").raise_for_status()
    environment = {**os.environ, "INFERENCE_WARNINGS_DISABLED": "true", "no_proxy": "127.0.0.1"}
    command = [str(python), session.__file__, package, server, str(folder)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, env=environment)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.fixture(scope="session")
def known(known_python: Path, server: str, folder: Path) -> dict[str, Any]:
    return run_session(known_python, "inference_sdk", server, folder)


@pytest.fixture(scope="session")
def ours(server: str, folder: Path) -> dict[str, Any]:
    return run_session(sys.executable, "florence2.client", server, folder)


def essential(value: Any) -> Any:
    """Without what differs from call to call and from client to client."""
    if isinstance(value, dict):
        passing = ("inference_id", "time", "text", "uuid", "request_aliases", "request_paths")
        return {name: essential(inner) for name, inner in value.items() if name not in passing}
    return [essential(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", [name for name in ANSWERED if name not in REFUSED and name not in BETTER])
def test_the_known_client_gets_its_answer(known: dict[str, Any], name: str, way: str) -> None:
    answer = known[name][way]["value"]
    assert answer.keys() == {"inference_id", "time", "image", "response"}
    assert answer["image"] == ({"width": 480, "height": 360} if name == "turned" else {"width": 480, "height": 480})
    ((task, value),) = answer["response"].items()
    assert CASES[name].options["prompt"].startswith(task)
    assert value


@pytest.mark.parametrize("way", WAYS)
def test_lists_of_the_known_client(known: dict[str, Any], way: str) -> None:
    upright, same, turned = known["list"][way]["value"]
    assert upright["response"] == same["response"] == known["detection"][way]["value"]["response"]
    assert turned["response"] == known["turned"][way]["value"]["response"]
    for name in ("list_at_once", "list_in_one_body"):
        assert [answer["response"] for answer in known[name][way]["value"]] == [known["path"][way]["value"]["response"]] * 3
    assert known["list_of_none"][way]["value"] == []


@pytest.mark.parametrize("name", REFUSED)
def test_errors_reach_the_known_client_with_their_message(known: dict[str, Any], name: str) -> None:
    status, said = REFUSED[name]
    assert known[name]["blocking"]["refused"] == known[name]["awaited"]["refused"] == status
    assert said in known[name]["blocking"]["said"]


def test_models_are_managed_by_the_known_client(known: dict[str, Any]) -> None:
    for way in WAYS:
        # The client resolves the alias, and asks by the alias afterwards: one model under both names.
        for name in ("load", "registry", "registry_header"):
            (model,) = known[name][way]["value"]["models"]
            assert (model["model_id"], model["task_type"]) == ("florence-pretrains/3", "lmm")
        assert known["unload"][way]["value"] == known["unload_all"][way]["value"] == {"models": []}
    assert known["info"]["blocking"]["value"].keys() == {"name", "version", "uuid"}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", [name for name in CASES if name not in BETTER])
def test_changing_the_import_changes_nothing(known: dict[str, Any], ours: dict[str, Any], name: str, way: str) -> None:
    theirs, own = essential(known[name][way]), essential(ours[name][way])
    if name in REFUSED:
        assert own["refused"] == theirs["refused"]
        assert own["said"] == known[name]["blocking"]["said"]  # awaited, theirs has lost it
        return
    if name in ENCODED_BY_THE_CLIENT:
        assert own["value"]["response"].keys() == theirs["value"]["response"].keys()
        return
    if CASES[name].method != "infer_lmm":  # ours names the model as the caller did
        assert len(own["value"]["models"]) == len(theirs["value"]["models"])
        return
    assert own == theirs


def test_what_ours_does_better(known: dict[str, Any], ours: dict[str, Any]) -> None:
    for way in WAYS:
        assert isinstance(known["list_of_one"][way]["value"], dict)
        assert essential(ours["list_of_one"][way]["value"]) == [essential(known["list_of_one"][way]["value"])]
        assert known["missing_file"][way]["refused"] == 400
        assert "no file '/nope/x.jpg'" in ours["missing_file"][way]["text"]
        assert known["unload_legacy"][way]["refused"] == 401
        assert ours["unload_legacy"][way]["value"] == {"models": []}
        assert ours["info"][way]["value"] == known["info"]["blocking"]["value"]


@pytest.mark.parametrize("name", LOCATED)
def test_supervision_reads_our_answers(known: dict[str, Any], name: str) -> None:
    found = known["detections"][name]
    ((task, value),) = known[name]["blocking"]["value"]["response"].items()
    if "quad_boxes" in value:
        assert [[value for corner in corners for value in corner] for corners in found["corners"]] == value["quad_boxes"]
        assert found["labels"] == value["labels"]
    elif "bboxes" in value:
        assert found["boxes"] == value["bboxes"]
        assert found["labels"] == ([] if task == "<REGION_PROPOSAL>" else value.get("labels", value.get("bboxes_labels")))
    else:
        drawable = [polygons for polygons in value["polygons"] if any(len(polygon) >= 6 for polygon in polygons)]
        assert len(found["boxes"]) == len(found["mask_pixels"]) == len(drawable)
        assert found["mask_shape"] in ([480, 480], None)
        assert all(found["mask_pixels"])
    for left, top, right, bottom in found["boxes"]:
        assert 0 <= left <= right < 480
        assert 0 <= top <= bottom < 480


@pytest.mark.parametrize("name", NAMED)
def test_supervision_reads_the_region_behind_its_name(known: dict[str, Any], name: str) -> None:
    found = known["detections"][name]
    assert len(found["labels"]) == 1
    assert found["labels"][0].endswith("white circle")
    assert found["boxes"] == [pytest.approx([52.8, 144.0, 140.16, 230.4], abs=1.0)]  # the region that was asked about, of 480 x 480


def test_supervision_is_not_given_empty_answers_only(known: dict[str, Any]) -> None:
    found = {name: len(detections["boxes"]) for name, detections in known["detections"].items()}
    assert min(found["detection"], found["quads"], found["referring"]) >= 1, found
