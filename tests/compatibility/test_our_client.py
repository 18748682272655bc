"""Our client and our server together: what both add to the known interface."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from florence2.client import (
    Answer,
    CallError,
    Done,
    ImageFailed,
    InferenceConfiguration,
    InferenceHTTPClient,
    InvalidInput,
    ObjectFound,
    TextDecided,
)
from tests.compatibility.session import KEY


def test_everything_that_can_be_asked_for_at_once(client: InferenceHTTPClient, folder: Path) -> None:
    options = {"scores": True, "raw": True, "coordinates": "float", "num_beams": 2, "no_repeat_ngram_size": 0, "max_new_tokens": 64}
    prompts = ["<OD>", "<CAPTION>", {"prompt": "<CAPTION_TO_PHRASE_GROUNDING>", "text": "a red square"}]
    answers = client.infer_lmm(folder / "scene.jpg", prompts=prompts, typed=True, **options)
    assert [answer.task for answer in answers] == ["<OD>", "<CAPTION>", "<CAPTION_TO_PHRASE_GROUNDING>"]
    detection = answers[0]
    assert isinstance(detection, Answer)
    assert detection.boxes
    assert all(isinstance(value, float) for box in detection.boxes for value in box)
    assert detection.scores is not None
    assert len(detection.scores) == len(detection.labels) == len(detection.boxes)
    assert all(0 < score <= 1 for score in detection.scores)
    assert detection.raw.endswith("</s>")
    assert detection.token_ids
    assert detection.log_probability is not None
    assert detection.to_dict(coordinates="float") == detection.response
    assert len({answer.inference_id for answer in answers}) == 1


def test_scaled_images_give_coordinates_of_the_original(client: InferenceHTTPClient, folder: Path, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    Image.open(folder / "scene.png").resize((1440, 960)).save(large)
    whole = client.infer_lmm(large, prompt="<OD>", typed=True)
    client.configure(InferenceConfiguration(client_downsizing_disabled=False, default_max_input_size=1200))
    scaled = client.infer_lmm(large, prompt="<OD>", typed=True)
    assert scaled.image_size == whole.image_size == (1440, 960)
    assert all(0 <= left <= right < 1440 and 0 <= top <= bottom < 960 for left, top, right, bottom in scaled.boxes)
    if scaled.labels == whole.labels:  # the resampling may tip the scales
        assert max(abs(a - b) for one, other in zip(scaled.boxes, whole.boxes, strict=True) for a, b in zip(one, other, strict=True)) < 40


@pytest.mark.parametrize("batch", [1, 3])
def test_bad_images_stand_in_their_place(client: InferenceHTTPClient, folder: Path, batch: int) -> None:
    client.configure(InferenceConfiguration(max_batch_size=batch))
    scene, no_image = folder / "scene.jpg", (folder / "url.txt")
    given = [scene, no_image, "/nope/x.jpg", scene]
    first, second, third, fourth = client.infer_lmm(given, prompt="<CAPTION>", on_error="item")
    assert isinstance(first, dict)
    assert isinstance(fourth, dict)
    assert first["response"] == fourth["response"]
    assert isinstance(second, CallError)
    assert isinstance(third, InvalidInput)
    assert (second.index, second.status_code, second.code) == (1, 400, "invalid_image")
    with pytest.raises(CallError, match="image 1: "):
        client.infer_lmm([scene, no_image], prompt="<CAPTION>")


def check_stream(client: InferenceHTTPClient, image: Path, **options: Any) -> list[Any]:
    """The events of a stream, after a look at whether they are those of the whole answer."""
    *events, last = client.stream_lmm(image, typed=True, **options)
    assert isinstance(last, Done)
    whole = client.infer_lmm(image, typed=True, **options)
    for prompt, (answer, other) in enumerate(zip(*(one if isinstance(one, list) else [one] for one in (last.answer, whole)), strict=True)):
        assert answer.response == other.response
        mine = [event for event in events if event.prompt_index == prompt]
        assert tuple(event.object for event in mine if isinstance(event, ObjectFound)) == answer.objects
        if answer.kind == "text":
            assert "".join(event.text for event in mine if isinstance(event, TextDecided)) == answer.text
    return events


@pytest.mark.parametrize("limit", [None, 200])
def test_streams_are_the_answers(client: InferenceHTTPClient, folder: Path, limit: int | None) -> None:
    client.configure(InferenceConfiguration(client_downsizing_disabled=limit is None, default_max_input_size=limit or 1024))
    prompts = ["<OD>", "<CAPTION>", "<OCR_WITH_REGION>", {"prompt": "<REFERRING_EXPRESSION_SEGMENTATION>", "text": "the white circle"}]
    for options in ({}, {"scores": True, "coordinates": "float", "num_beams": 1}):
        events = check_stream(client, folder / "scene.jpg", prompts=prompts, **options)
        assert {type(event) for event in events} == {TextDecided, ObjectFound}
    check_stream(client, folder / "turned.jpg", prompt="<DENSE_REGION_CAPTION>", usage=True)


@pytest.mark.parametrize("batch", [1, 3])
def test_bad_images_of_a_stream(client: InferenceHTTPClient, folder: Path, batch: int) -> None:
    client.configure(InferenceConfiguration(max_batch_size=batch))
    scene, no_image = folder / "scene.jpg", folder / "url.txt"
    *events, last = client.stream_lmm([scene, no_image, "/nope/x.jpg", scene], prompt="<CAPTION>", on_error="item", typed=True)
    failed = {event.image_index: event.error for event in events if isinstance(event, ImageFailed)}
    assert isinstance(last, Done)
    first, second, third, fourth = last.answer
    assert (first.text, failed[1], failed[2]) == (fourth.text, second, third)
    assert (second.index, second.status_code, second.code) == (1, 400, "invalid_image")
    with pytest.raises(CallError, match="image 1: "):
        list(client.stream_lmm([scene, no_image], prompt="<CAPTION>"))


def test_urls_may_be_left_to_the_server(client: InferenceHTTPClient, folder: Path) -> None:
    url = (folder / "url.txt").read_text()
    fetched_here = client.infer_lmm(url, prompt="<CAPTION>")
    client.configure(InferenceConfiguration(send_urls=True))
    assert client.infer_lmm(url, prompt="<CAPTION>")["response"] == fetched_here["response"]
    with pytest.raises(CallError, match="Could not load input image") as caught:
        client.infer_lmm(url + ".gone", prompt="<CAPTION>")
    assert caught.value.field == "image"


def test_awaited_calls_share_their_connections(server: str, folder: Path) -> None:
    async def captions() -> list[str]:
        async with InferenceHTTPClient(server, KEY) as client:
            calls = [client.infer_lmm_async(folder / "scene.jpg", "florence-2-base", "<CAPTION>", typed=True) for _ in range(4)]
            return [answer.text for answer in await asyncio.gather(*calls)]

    assert len(set(asyncio.run(captions()))) == 1


def test_errors_name_their_field_and_where_to_read_more(client: InferenceHTTPClient, folder: Path) -> None:
    with pytest.raises(CallError) as caught:
        client.infer_lmm(folder / "scene.jpg", prompt="<REGION_TO_OCR>", region=(0, 0, 9999, 10))
    error = caught.value
    assert (error.status_code, error.code, error.field) == (400, "invalid_region", "region")
    assert error.help_url is not None
    assert error.help_url.endswith("#invalid_region")
    assert error.request_id
