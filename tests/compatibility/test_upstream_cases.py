"""The incumbent's own integration tests, replayed: what they ask for, with expectations that hold for the demo checkpoint."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image

from florence2.client import InferenceHTTPClient
from florence2.evaluation.metrics import box_overlaps
from florence2.tasks import expand_prompt
from tests.compatibility.session import KEY

# What is on the scene: see examples/make_scene.py.
BOXES = {"white circle": (91, 134, 171, 213), "yellow star": (105, 1, 289, 166), "purple circle": (227, 90, 369, 232)}
REGION = BOXES["white circle"]


def asked(server: str, path: str = "/infer/lmm", headers: dict[str, str] | None = None, **fields: Any) -> httpx2.Response:
    body = {"prompt": "<CAPTION>", "model_id": "florence-2-base", **fields}
    return httpx2.post(server + path, json=body, headers=headers, timeout=60)


@pytest.fixture
def image(folder: Path) -> dict[str, str]:
    return {"type": "url", "value": (folder / "url.txt").read_text()}


@pytest.fixture
def _cleared(server: str) -> None:
    assert httpx2.post(f"{server}/model/clear?api_key={KEY}").status_code == 200


@pytest.mark.usefixtures("_cleared")
@pytest.mark.parametrize("transport", ["legacy", "header"])
@pytest.mark.parametrize("model", ["florence-2-base", "florence-2-large"])
def test_caption_of_a_url_with_either_transport(server: str, image: dict[str, str], model: str, transport: str) -> None:
    fields = {"api_key": KEY} if transport == "legacy" else {}
    headers = {"Authorization": f"Bearer {KEY}"} if transport == "header" else None
    response = asked(server, image=image, model_id=model, headers=headers, **fields)
    response.raise_for_status()
    assert len(response.json()["response"]) > 0


@pytest.mark.usefixtures("_cleared")
def test_alias_and_id_are_one_model(server: str, image: dict[str, str]) -> None:
    with InferenceHTTPClient(server, KEY) as client:
        client.load_model("florence-2-base")
        for model in ("florence-pretrains/3", "florence-2-base", "florence-pretrains/1"):
            assert asked(server, f"/infer/lmm/{model}", image=image, model_id=model, api_key=KEY).status_code == 200
        (loaded,) = client.list_loaded_models().models
        assert {loaded.model_id, *loaded.request_aliases} >= {"florence-2-base", "florence-pretrains/1", "florence-pretrains/3"}
        assert client.unload_model("florence-2-base").models == []


def test_key_precedence_is_query_then_bearer_then_body(server: str, image: dict[str, str]) -> None:
    good, bad = {"Authorization": f"Bearer {KEY}"}, {"Authorization": "Bearer wrong"}
    assert asked(server, f"/infer/lmm?api_key={KEY}", bad, image=image, api_key="wrong").status_code == 200
    assert asked(server, "/infer/lmm", good, image=image, api_key="wrong").status_code == 200
    assert asked(server, "/infer/lmm?api_key=wrong", good, image=image, api_key=KEY).status_code == 401
    assert asked(server, "/infer/lmm", bad, image=image, api_key=KEY).status_code == 401
    assert asked(server, "/infer/lmm", {"Authorization": f"Basic {KEY}"}, image=image).status_code == 401
    assert asked(server, "/infer/lmm", {"x-api-key": KEY}, image=image).status_code == 401


def test_closed_and_open_paths(server: str) -> None:
    refused = httpx2.get(f"{server}/model/registry")
    assert refused.status_code == 401
    assert {"status": 401, "message": "Unauthorized api_key"}.items() <= refused.json().items()
    for path in ("/", "/info", "/healthz", "/readiness", "/docs"):
        assert httpx2.get(server + path).status_code == 200
    injected = httpx2.get(f"{server}/model/registry", headers={"Host": "localhost/docs?x="})
    assert injected.status_code == 401


def test_caption_and_text_say_what_is_there(client: InferenceHTTPClient, folder: Path) -> None:
    caption = client.infer_lmm(folder / "scene.jpg", prompt="<CAPTION>")["response"]["<CAPTION>"]
    assert [label for label in BOXES if label not in caption] == []
    assert client.infer_lmm(folder / "scene.jpg", prompt="<OCR>")["response"]["<OCR>"] == "FISH"


def test_detection_finds_what_is_there(client: InferenceHTTPClient, folder: Path) -> None:
    found = client.infer_lmm(folder / "scene.jpg", prompt="<OD>")["response"]["<OD>"]
    assert sorted(found["labels"]) == sorted(BOXES)
    assert all(box_overlaps([box], [BOXES[label]])[0, 0] > 0.5 for box, label in zip(found["bboxes"], found["labels"], strict=True))


def test_region_tasks(client: InferenceHTTPClient, folder: Path) -> None:
    scene = folder / "scene.jpg"
    category = client.infer_lmm(scene, prompt="<REGION_TO_CATEGORY>", region=REGION, typed=True).text
    assert re.fullmatch(r"white circle(<loc_\d+>){4}", category)
    description = client.infer_lmm(scene, prompt="<REGION_TO_DESCRIPTION>", region=REGION, typed=True).text
    assert re.fullmatch(r".*white circle(<loc_\d+>){4}", description)
    mask = client.infer_lmm(scene, prompt="<REGION_TO_SEGMENTATION>", region=REGION, typed=True)
    assert all(0 <= value < 480 for polygons in mask.polygons for polygon in polygons for value in polygon)
    tokens = expand_prompt("<REGION_TO_CATEGORY>", region=REGION, image_size=(480, 480)).removeprefix("What is the region ")
    inline = client.infer_lmm(scene, prompt="<REGION_TO_CATEGORY>" + tokens.removesuffix("?"), typed=True)
    assert inline.text == category


def test_array_and_picture_have_the_same_caption(client: InferenceHTTPClient, folder: Path) -> None:
    picture = Image.open(folder / "scene.png").convert("RGB")
    array = np.asarray(picture)[:, :, ::-1]
    first, second = client.infer_lmm([picture, array], prompt="<CAPTION>")
    assert first["response"] == second["response"]


def test_several_classes_at_once(client: InferenceHTTPClient, folder: Path) -> None:
    answer = client.infer_lmm(folder / "scene.jpg", prompt="<OPEN_VOCABULARY_DETECTION>purple circle<and>yellow star")
    found = answer["response"]["<OPEN_VOCABULARY_DETECTION>"]
    assert found.keys() == {"bboxes", "bboxes_labels", "polygons", "polygons_labels"}
    assert sorted(found["bboxes_labels"]) == ["purple circle", "yellow star"]
    assert all(box_overlaps([box], [BOXES[label]])[0, 0] > 0.5 for box, label in zip(found["bboxes"], found["bboxes_labels"], strict=True))


def test_boxes_become_location_tokens() -> None:
    for box, tokens in (
        ((60, 30, 100, 50), "<loc_300><loc_300><loc_500><loc_500>"),
        ((50, 10, 100, 40), "<loc_250><loc_100><loc_500><loc_400>"),
    ):
        assert tokens in expand_prompt("<REGION_TO_SEGMENTATION>", region=box, image_size=(200, 100))
