# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
"""A program of a user of the client: what an editor knows of each result. Checked by test_types.py, never run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, assert_type

import numpy as np
from PIL import Image

from florence2.client import (
    Answer,
    AwaitedLmmStream,
    CallError,
    Done,
    InferenceConfiguration,
    InferenceError,
    InferenceHTTPClient,
    LmmStream,
    ModelDescription,
    ObjectFound,
    PromptOptions,
    RegisteredModels,
    ServerInfo,
)
from florence2.results import FoundObject

PROMPTS = ["<OD>", "<CAPTION>"]
REGIONS: list[str | PromptOptions] = ["<OD>", {"prompt": "<REGION_TO_OCR>", "region": (1, 2, 3, 4)}]
client = InferenceHTTPClient("http://localhost:9001", "key")


def one_image(picture: Image.Image, array: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    assert_type(client.infer_lmm("a.jpg", "m", "<OD>"), dict[str, Any])
    assert_type(client.infer_lmm(Path("a.jpg"), "m", "<OD>", typed=False), dict[str, Any])
    assert_type(client.infer_lmm(b"", "m", prompts=PROMPTS), dict[str, Any])
    assert_type(client.infer_lmm(picture, "m", "<OD>", on_error="item"), dict[str, Any])
    assert_type(client.infer_lmm(array, "m", "<OD>", True, 20, None, progress=True, num_beams=1), dict[str, Any])
    assert_type(client.infer_lmm("a.jpg", "m", "<OD>", typed=True), Answer)
    assert_type(client.infer_lmm(picture, "m", "<OD>", typed=True, on_error="item", scores=True), Answer)
    assert_type(client.infer_lmm(array, "m", "<OD>", typed=True, prompts=None), Answer)
    assert_type(client.infer_lmm("a.jpg", "m", typed=True, prompts=PROMPTS), list[Answer])
    assert_type(client.infer_lmm("a.jpg", "m", typed=True, prompts=REGIONS), list[Answer])
    inline = client.infer_lmm("a.jpg", "m", typed=True, prompts=["<OD>", {"prompt": "<REGION_TO_OCR>", "region": (1, 2, 3, 4)}])
    assert_type(inline, list[Answer])


def streams(array: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    assert_type(client.stream_lmm("a.jpg", "m", "<OD>"), LmmStream[dict[str, Any]])
    assert_type(client.stream_lmm(array, "m", "<OD>", typed=True, scores=True), LmmStream[Answer])
    assert_type(client.stream_lmm("a.jpg", "m", typed=True, prompts=PROMPTS), LmmStream[list[Answer]])
    assert_type(client.stream_lmm(["a.jpg"], "m", "<OD>", on_error="item"), LmmStream[list[Any]])
    assert_type(client.stream_lmm_async("a.jpg", "m", "<OD>", True, 20, None, typed=True), AwaitedLmmStream[Answer])
    for event in client.stream_lmm("a.jpg", "m", "<OD>", typed=True):
        if isinstance(event, Done):
            assert_type(event.answer, Answer)
        elif isinstance(event, ObjectFound):
            assert_type(event.object, FoundObject)


def lists(pictures: list[Image.Image], paths: tuple[Path, ...], mixed: list[str | bytes | Image.Image]) -> None:
    assert_type(client.infer_lmm(["a.jpg"], "m", "<OD>"), list[dict[str, Any]])
    assert_type(client.infer_lmm(paths, "m", "<OD>", typed=False), list[dict[str, Any]])
    assert_type(client.infer_lmm(pictures, "m", "<OD>", typed=True), list[Answer])
    assert_type(client.infer_lmm(mixed, "m", typed=True, prompts=PROMPTS), list[list[Answer]])
    assert_type(client.infer_lmm(mixed, "m", "<OD>", on_error="fail"), list[dict[str, Any]])
    assert_type(client.infer_lmm(pictures, "m", "<OD>", on_error="item"), list[dict[str, Any] | InferenceError])
    assert_type(client.infer_lmm(paths, "m", "<OD>", on_error="item", typed=True), list[Answer | InferenceError])
    assert_type(client.infer_lmm(paths, "m", on_error="item", typed=True, prompts=PROMPTS), list[list[Answer] | InferenceError])
    for outcome in client.infer_lmm(paths, "m", "<OD>", on_error="item", typed=True):
        if isinstance(outcome, InferenceError):
            assert_type(outcome.status_code, int | None)
        else:
            assert_type(outcome.boxes, list[list[int]])


def chosen_elsewhere(typed: bool, on_error: Literal["fail", "item"]) -> None:
    """What is only known when the program runs has all types that it may have."""
    one: dict[str, Any] | Answer | list[Answer] = client.infer_lmm("a.jpg", "m", "<OD>", typed=typed)
    for each in client.infer_lmm(["a.jpg"], "m", "<OD>", typed=typed, on_error=on_error):
        whatever: dict[str, Any] | Answer | list[Answer] | InferenceError = each
        print(whatever)
    print(one)


async def awaited(pictures: list[Image.Image]) -> None:
    async with client as same:
        assert_type(same, InferenceHTTPClient)
        assert_type(await same.infer_lmm_async("a.jpg", "m", "<OD>"), dict[str, Any])
        assert_type(await same.infer_lmm_async("a.jpg", "m", "<OD>", typed=True), Answer)
        assert_type(await same.infer_lmm_async("a.jpg", "m", typed=True, prompts=PROMPTS), list[Answer])
        assert_type(await same.infer_lmm_async(pictures, "m", "<OD>"), list[dict[str, Any]])
        assert_type(await same.infer_lmm_async(pictures, "m", "<OD>", typed=True), list[Answer])
        assert_type(await same.infer_lmm_async(pictures, "m", typed=True, prompts=PROMPTS), list[list[Answer]])
        assert_type(await same.infer_lmm_async(pictures, "m", "<OD>", on_error="item"), list[dict[str, Any] | InferenceError])
        assert_type(await same.infer_lmm_async(pictures, "m", "<OD>", on_error="item", typed=True), list[Answer | InferenceError])
        assert_type(
            await same.infer_lmm_async(pictures, "m", on_error="item", typed=True, prompts=PROMPTS), list[list[Answer] | InferenceError]
        )
        assert_type(await same.get_server_info_async(), ServerInfo)
        assert_type(await same.list_loaded_models_async(), RegisteredModels)
        assert_type(await same.get_model_description_async("m"), ModelDescription)
        assert_type(await same.load_model_async("m"), RegisteredModels)
        assert_type(await same.unload_model_async("m"), RegisteredModels)
        assert_type(await same.unload_all_models_async(), RegisteredModels)


async def awaited_chosen_elsewhere(typed: bool, on_error: Literal["fail", "item"]) -> None:
    one: dict[str, Any] | Answer | list[Answer] = await client.infer_lmm_async("a.jpg", "m", "<OD>", typed=typed)
    for each in await client.infer_lmm_async(["a.jpg"], "m", "<OD>", typed=typed, on_error=on_error):
        whatever: dict[str, Any] | Answer | list[Answer] | InferenceError = each
        print(whatever)
    print(one)


def beside_it() -> None:
    assert_type(InferenceHTTPClient.init("http://localhost:9001"), InferenceHTTPClient)
    assert_type(client.configure(InferenceConfiguration(max_retries=1)).select_model("m").select_api_v0(), InferenceHTTPClient)
    assert_type(client.inference_configuration, InferenceConfiguration)
    assert_type(client.selected_model, str | None)
    assert_type(client.get_server_info().version, str)
    assert_type(client.list_loaded_models().models, list[ModelDescription])
    with client.use_model("m") as same, client.use_configuration(InferenceConfiguration()), client as third:
        assert_type(same, InferenceHTTPClient)
        assert_type(third, InferenceHTTPClient)
    try:
        client.load_model("m", set_as_default=True)
    except CallError as error:
        assert_type(error.status_code, int | None)
        assert_type(error.code, str)
        assert_type(error.retry_after, float | None)


def mistakes_are_seen() -> None:
    client.infer_lmm("a.jpg", "m", "<OD>", nothing=1)  # type: ignore
    client.infer_lmm("a.jpg", "m", "<OD>", on_error="ignore")  # type: ignore
    client.infer_lmm("a.jpg", "m", "<OD>", coordinates="double")  # type: ignore
    client.infer_lmm(7, "m", "<OD>")  # type: ignore
    print(client.infer_lmm("a.jpg", "m", "<OD>", typed=True)["response"])  # type: ignore
    print(client.infer_lmm(["a.jpg"], "m", "<OD>", typed=True).labels)  # type: ignore
    client.infer("a.jpg")  # type: ignore
