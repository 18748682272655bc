"""The interface that clients know: fields, defaults, ids, headers, and what is added to them."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any
from urllib.parse import unquote

import httpx2
import pytest

from fixtures.fake_engine import FakeEngine
from tests.server.fakes import body, client_of, image_bytes, image_field, rotated_jpeg

pytestmark = pytest.mark.anyio

CAPTION = "What does the image describe?"


async def post(client: httpx2.AsyncClient, path: str = "/infer/lmm", **fields: Any) -> httpx2.Response:
    return await client.post(f"http://server{path}", json=body(**fields))


async def test_answer_has_the_known_fields() -> None:
    async with client_of() as client:
        response = await post(client, id="mine")
    assert response.status_code == 200
    content = response.json()
    assert content.pop("time") >= 0
    assert content == {"inference_id": "mine", "image": {"width": 64, "height": 48}, "response": {"<CAPTION>": CAPTION}}
    assert response.headers["content-type"] == "application/json"


async def test_headers() -> None:
    async with client_of(allow_origins="https://a.example") as client:
        response = await client.post("/infer/lmm", json=body(), headers={"X-Request-Id": "abc-1", "Origin": "https://a.example"})
        other = await client.post("/infer/lmm", json=body(), headers={"X-Request-Id": "no\tgood" * 99})
    assert response.headers["x-request-id"] == "abc-1"
    assert response.headers["x-model-id"] == "florence-2-base"
    assert response.headers["x-model-cold-start"] == "true"
    assert other.headers["x-model-cold-start"] == "false"
    (detail,) = json.loads(response.headers["x-model-load-details"])
    assert detail == {"m": response.headers["x-model-id"], "t": float(response.headers["x-model-load-time"])}
    assert "x-model-load-details" not in other.headers
    assert float(response.headers["x-processing-time"]) >= 0
    assert response.headers["access-control-allow-origin"] == "https://a.example"
    assert response.headers["access-control-allow-credentials"] == "true"
    assert "X-Processing-Time" in response.headers["access-control-expose-headers"]
    assert len(other.headers["x-request-id"]) == 32


@pytest.mark.parametrize("name", ["d고양이", "détecteur/v2"])
async def test_a_models_name_in_any_letters(name: str) -> None:
    async with client_of(models={name: "florence-2-base"}) as client:
        response = await client.post("/infer/lmm", json=body(model_id=name))
        streamed = await client.post("/infer/lmm", json=body(model_id=name, stream=True))
        by_path = await client.post(f"/infer/lmm/{name}", json=body(model_id=None))
    for one in (response, streamed, by_path):
        assert one.status_code == 200, one.text
        assert unquote(one.headers["x-model-id"]) == name
    assert json.loads(response.headers["x-model-load-details"])[0]["m"] == name


async def test_preflight_needs_no_key() -> None:
    headers = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    async with client_of(api_keys="a-long-key", allow_origins="*") as client:
        response = await client.options("/infer/lmm", headers=headers)
    assert response.status_code == 200
    assert response.text == "OK"


async def test_ids_are_new_each_time() -> None:
    async with client_of() as client:
        ids = {(await post(client)).json()["inference_id"] for _ in range(3)}
    assert len(ids) == 3


@pytest.mark.parametrize("path", ["//infer/lmm", "/infer/lmm/", "/infer/lmm/florence-2-base", "/infer/lmm/florence-pretrains/3"])
async def test_paths_to_one_model(path: str) -> None:
    async with client_of() as client:
        response = await post(client, path)
    assert response.status_code == 200
    assert response.headers["x-model-id"] == "florence-2-base"


async def test_path_form_needs_no_model_in_the_body() -> None:
    async with client_of() as client:
        assert (await post(client, "/infer/lmm/florence-pretrains/4", model_id=None)).headers["x-model-id"] == "florence-2-large"


async def test_path_and_body_must_agree() -> None:
    async with client_of() as client:
        response = await post(client, "/infer/lmm/florence-2-large")
    assert response.status_code == 400
    assert response.json()["message"].startswith("Model ID mismatch: path specifies 'florence-2-large' but request body specifies")


async def test_coercions_of_known_clients() -> None:
    engine = FakeEngine()
    async with client_of(engine) as client:
        query = {"countinference": "False", "service_secret": "shh"}
        fields = body(max_new_tokens="7", enable_thinking=False, source="src", source_info="info", temperature=1, do_sample=True)
        response = await client.post("/infer/lmm", params=query, json=fields)
    assert response.status_code == 200
    assert engine.asked[0]["max_new_tokens"] == 7


async def test_no_limit_of_its_own_on_tokens() -> None:
    engine = FakeEngine()
    async with client_of(engine) as client:
        await post(client, max_new_tokens=None)
    assert "max_new_tokens" not in engine.asked[0]


async def test_charset_in_the_content_type() -> None:
    async with client_of() as client:
        headers = {"Content-Type": "application/json; charset=utf-8"}
        response = await client.post("/infer/lmm", content=httpx2.Request("POST", "http://x", json=body()).content, headers=headers)
    assert response.status_code == 200


async def test_exif_rotation() -> None:
    async with client_of() as client:
        upright = await post(client, image=image_field(rotated_jpeg()))
        as_it_is = await post(client, image=image_field(rotated_jpeg()), disable_preproc_auto_orient=True)
    assert upright.json()["image"] == {"width": 48, "height": 64}
    assert as_it_is.json()["image"] == {"width": 64, "height": 48}


async def test_list_of_images_keeps_its_order() -> None:
    sizes = [(10 + index, 20) for index in range(7)]
    async with client_of() as client:
        response = await post(client, image=[image_field(image_bytes(size)) for size in sizes])
    assert [(answer["image"]["width"], answer["image"]["height"]) for answer in response.json()] == sizes
    assert len({answer["inference_id"] for answer in response.json()}) == len(sizes)


async def test_list_of_one_is_a_list() -> None:
    async with client_of() as client:
        assert len((await post(client, image=[image_field()])).json()) == 1


async def test_images_of_a_list_are_in_the_engine_together() -> None:
    engine = FakeEngine()
    engine.hold = True
    async with client_of(engine) as client:
        call = asyncio.create_task(post(client, image=[image_field()] * 5))
        while len(engine.futures) < 5:
            await asyncio.sleep(0.01)
        engine.release()
        assert len((await call).json()) == 5


async def test_a_bad_image_fails_the_call_and_is_named() -> None:
    engine = FakeEngine()
    async with client_of(engine) as client:
        response = await post(client, image=[image_field(), {"type": "base64", "value": "!!!"}, image_field()])
    assert response.status_code == 400
    assert response.json()["field"] == "image[1]"
    assert response.json()["message"].startswith("image[1]: Could not load input image. Cause: Malformed base64 input image.")


async def test_a_bad_image_in_its_place() -> None:
    async with client_of() as client:
        response = await post(client, image=[image_field(), {"type": "base64", "value": "!!!"}, image_field()], on_error="item")
    assert response.status_code == 200
    good, bad, last = response.json()
    assert "response" in good
    assert "response" in last
    assert bad["error"]["code"] == "invalid_image"
    assert bad["error"]["status"] == 400
    assert bad["error"]["field"] == "image[1]"


async def test_region_outside_one_of_several_images() -> None:
    async with client_of() as client:
        images = [image_field(image_bytes((100, 100))), image_field(image_bytes((10, 10)))]
        response = await post(client, image=images, prompt="<REGION_TO_CATEGORY>", region=[0, 0, 50, 50])
        item = await post(client, image=images, prompt="<REGION_TO_CATEGORY>", region=[0, 0, 50, 50], on_error="item")
    assert response.status_code == 400
    assert response.json()["message"].startswith("image[1]: a region is")
    assert "response" in item.json()[0]
    assert item.json()[1]["error"]["code"] == "invalid_region"


async def test_engine_failures_are_no_items() -> None:
    engine = FakeEngine()
    engine.failure = RuntimeError("secret detail")
    async with client_of(engine) as client:
        response = await post(client, image=[image_field()] * 2, on_error="item")
    assert response.status_code == 500
    assert "secret" not in response.text
    assert response.headers["x-request-id"]


async def test_several_prompts() -> None:
    engine = FakeEngine()
    prompts = [
        "<CAPTION>",
        {"prompt": "<REGION_TO_CATEGORY>", "region": [0, 0, 64, 48]},
        {"prompt": "<CAPTION_TO_PHRASE_GROUNDING>", "text": "a dog"},
        "<CAPTION_TO_PHRASE_GROUNDING>a cat",
    ]
    async with client_of(engine) as client:
        response = await post(client, prompt=None, prompts=prompts, raw=True)
    content = response.json()
    assert [list(answer) for answer in content["response"]] == [
        ["<CAPTION>"],
        ["<REGION_TO_CATEGORY>"],
        ["<CAPTION_TO_PHRASE_GROUNDING>"],
        ["<CAPTION_TO_PHRASE_GROUNDING>"],
    ]
    assert [asked["prompt"] for asked in engine.asked][1:] == [
        "<REGION_TO_CATEGORY><loc_0><loc_0><loc_999><loc_999>",
        "<CAPTION_TO_PHRASE_GROUNDING>a dog",
        "<CAPTION_TO_PHRASE_GROUNDING>a cat",
    ]
    assert len({id(picture) for picture in engine.pictures}) == 1
    assert len(content["raw"]) == 4


async def test_options_reach_the_engine() -> None:
    engine = FakeEngine()
    async with client_of(engine) as client:
        response = await post(client, prompt="<OD>", num_beams=2, no_repeat_ngram_size=0, max_new_tokens=50, scores=True, raw=True)
    asked = engine.asked[0]
    assert (asked["num_beams"], asked["no_repeat_ngram_size"], asked["max_new_tokens"]) == (2, 0, 50)
    assert asked["keep_image"] is False  # answers that wait hold no decoded pictures
    assert response.json()["response"]["<OD>"] == {"bboxes": [[0, 0, 63, 47]], "labels": ["thing"], "scores": [0.5]}
    assert response.json()["raw"]["finish_reason"] == "stop"
    assert response.json()["raw"]["token_ids"] == [0, 7, 2]


async def test_float_coordinates() -> None:
    async with client_of() as client:
        response = await post(client, prompt="<OD>", coordinates="float")
    assert response.json()["response"]["<OD>"]["bboxes"] == [[0.032, 0.024, 63.968, 47.976]]


async def test_text_and_region_apart() -> None:
    engine = FakeEngine()
    async with client_of(engine) as client:
        await post(client, prompt="<OPEN_VOCABULARY_DETECTION>", text="dog<and>cat")
        await post(client, prompt="<REGION_TO_CATEGORY>", region=[0, 0, 64, 48])
    assert engine.asked[0]["sentence"] == "Locate dog<and>cat in the image."
    assert engine.asked[1]["sentence"] == "What is the region <loc_0><loc_0><loc_999><loc_999>?"


async def test_free_prompts_and_their_key() -> None:
    async with client_of() as client:
        for prompt, key in (("describe", "describe>"), ("", ">"), ("a > b", "a >")):
            assert list((await post(client, prompt=prompt)).json()["response"]) == [key]


async def test_multipart_form() -> None:
    engine = FakeEngine()
    fields = {"model_id": "florence-2-base", "prompt": "<REGION_TO_CATEGORY>", "region": "1,2,30,40", "num_beams": "2", "raw": "true"}
    async with client_of(engine) as client:
        response = await client.post("/infer/lmm", data=fields, files={"image": ("a.png", image_bytes(), "image/png")})
    assert response.status_code == 200
    assert engine.asked[0]["region"] == [1, 2, 30, 40]
    assert engine.asked[0]["num_beams"] == 2
    assert "raw" in response.json()


async def test_multipart_form_with_several_images_and_prompts() -> None:
    files = [("image", (f"{index}.png", image_bytes((10 + index, 5)))) for index in range(3)]
    async with client_of() as client:
        response = await client.post(
            "/infer/lmm/florence-2-base", data={"prompts": ["<OD>", "<CAPTION>"]}, files=files, params={"scores": "true"}
        )
    assert [answer["image"]["width"] for answer in response.json()] == [10, 11, 12]
    assert response.json()[0]["response"][0]["<OD>"]["scores"] == [0.5]


async def test_text_in_place_of_the_forms_image() -> None:
    async with client_of() as client:
        response = await client.post("/infer/lmm", data={"image": "text", "prompt": "<OD>"}, files={"other": ("a", b"b")})
    assert response.status_code == 422
    assert response.json()["field"] == "image"


@pytest.mark.parametrize(
    ("fields", "files", "got"),
    [
        ({}, {}, "got none"),
        ({}, {"file": ("a.png", b"b"), "picture": ("a.png", b"b")}, "got files named file, picture"),
        ({"image": "aGk="}, {}, "got a field without a file name"),
        ({}, {"image" * 20: ("a.png", b"b")}, "got files named imageimage"),
    ],
)
async def test_a_form_without_an_image_is_told_of_forms(fields: dict[str, str], files: dict[str, Any], got: str) -> None:
    async with client_of() as client:
        files = files or {"notes": (None, b"-")}
        response = await client.post("/infer/lmm/florence-2-base", data={"prompt": "<OD>", **fields}, files=files)
    assert response.status_code == 422
    assert response.json()["field"] == "image"
    assert response.json()["message"].startswith("the form needs an image as a file part named image")
    assert got in response.json()["message"]
    assert "-F image=@photo.jpg" in response.json()["message"]
    assert "base64" not in response.json()["message"]
    assert len(response.json()["message"]) < 500


@pytest.mark.parametrize("field", ["num_beams", "no_repeat_ngram_size"])
async def test_true_is_no_number_in_this_projects_own_fields(field: str) -> None:
    async with client_of() as client:
        one, true = ({"prompt": "<OD>", field: value} for value in (1, True))
        assert (await post(client, **one)).status_code == 200  # pyright: ignore[reportArgumentType]
        refused = await post(client, **true)  # pyright: ignore[reportArgumentType]
    assert (refused.status_code, refused.json()["field"]) == (422, field)


@pytest.mark.parametrize("prompt", ["OD", "&lt;OD&gt;", " <Od> "])
async def test_a_tag_without_its_brackets_is_told_the_tag(prompt: str) -> None:
    async with client_of() as client:
        refused = await post(client, prompt=prompt)
        taken = await post(client, prompt=prompt, allow_unknown_tag=True)
    assert (refused.status_code, refused.json()["code"]) == (400, "unknown_task")
    assert "did you mean <OD>?" in refused.json()["message"]
    assert taken.status_code == 200


async def test_raw_image_body() -> None:
    async with client_of() as client:
        query = {"model_id": "florence-2-base", "prompt": "<OD>"}
        response = await client.post("/infer/lmm", params=query, content=rotated_jpeg(), headers={"Content-Type": "image/jpeg"})
    assert response.json()["image"] == {"width": 48, "height": 64}


async def test_management() -> None:
    async with client_of() as client:
        added = await client.post("/model/add", json={"model_id": "florence-pretrains/3", "api_key": "KEY", "model_type": "x"})
        again = await client.post("/model/add", json={"model_id": "florence-2-base"})
        await post(client, model_id="florence-pretrains/1")
        listed = (await client.get("/model/registry", params={"api_key": "None"})).json()
        removed = await client.post("/model/remove", json={"model_id": "florence-pretrains/3"})
        nothing = await client.post("/model/remove", json={"model_id": "nope/1"})
        cleared = await client.post("/model/clear", headers={"Content-Type": "application/octet-stream"})
    # Whoever adds a model by a name finds it by that name.
    assert [model["model_id"] for model in added.json()["models"]] == ["florence-2-demo", "florence-pretrains/3"]
    assert [model["model_id"] for model in again.json()["models"]] == ["florence-2-demo", "florence-2-base"]
    assert listed["models"][1] == {
        "model_id": "florence-2-base",
        "task_type": "lmm",
        "batch_size": None,
        "input_height": None,
        "input_width": None,
        "vram_bytes": None,
        "request_aliases": ["florence-pretrains/1", "florence-pretrains/3"],
        "request_paths": [
            "/infer/lmm",
            "/infer/lmm/florence-2-base",
            "/infer/lmm/florence-pretrains/1",
            "/infer/lmm/florence-pretrains/3",
        ],
    }
    assert listed["total_vram_bytes"] is None
    assert [model["model_id"] for model in removed.json()["models"]] == ["florence-2-demo"]
    assert nothing.status_code == 200
    assert cleared.json()["models"] == []


async def test_pages_and_state() -> None:
    async with client_of() as client:
        info = (await client.get("/info")).json()
        assert set(info) == {"name", "version", "uuid"}
        assert (await client.get("/healthz")).json() == {"status": "healthy"}
        assert (await client.get("/readiness")).json() == {"status": "ready"}
        assert (await client.head("/healthz")).status_code == 200
        assert (await client.get("/")).headers["content-type"].startswith("text/html")
        assert "swagger" in (await client.get("/docs")).text
        described = (await client.get("/openapi.json")).json()
        assert "florence2_models_loaded 1.0" in (await client.get("/metrics")).text
    content = described["paths"]["/infer/lmm"]["post"]["requestBody"]["content"]
    assert set(content) == {"application/json", "multipart/form-data", "image/*"}
    assert "num_beams" in content["application/json"]["schema"]["properties"]


async def test_docs_carry_the_readers_key_safely() -> None:
    async with client_of(api_keys="a-long-key") as client:
        page = (await client.get("/docs", params={"api_key": "a'</script>"})).text
    assert "/openapi.json?api_key=a%27%3C%2Fscript%3E" in page


async def test_draining_refuses_new_requests_only() -> None:
    engine = FakeEngine()
    engine.hold = True
    async with client_of(engine) as client:
        call = asyncio.create_task(post(client))
        while not engine.futures:
            await asyncio.sleep(0.01)
        client.app.state.server.admission.is_draining = True  # type: ignore[attr-defined]
        refused = await post(client)
        state = await client.get("/readiness")
        engine.release()
        assert (await call).status_code == 200
    assert refused.status_code == 503
    assert refused.json()["code"] == "draining"
    assert refused.headers["retry-after"] == "5"
    assert state.status_code == 503
    assert state.json() == {"status": "not ready", "reason": "draining"}


async def test_a_model_that_is_dropped_meanwhile_is_loaded_again() -> None:
    engines = [FakeEngine(), FakeEngine()]
    made = iter(engines)
    async with client_of(loader=lambda _: next(made)) as client:
        await post(client, model_id="florence-2-demo")
        engines[0].is_closed = True
        assert (await post(client, model_id="florence-2-demo")).status_code == 200
    assert len(engines[1].asked) == 1


async def test_base64_without_ceremony() -> None:
    value = base64.b64encode(image_bytes()).decode()
    async with client_of() as client:
        response = await post(client, image={"type": "BASE64", "value": f"data:image/png;base64,{value}", "extra": 1})
    assert response.status_code == 200


async def test_the_landing_says_what_answers_where_no_model_was_named() -> None:
    asked: tuple[tuple[dict[str, Any], bool], ...] = (
        ({}, True),
        ({"model": ["florence-2-demo"]}, False),
        ({"model": ["florence-2-base"]}, False),
    )
    for settings, is_told in asked:
        async with client_of(**settings, playground=False) as client:
            page = await client.get("/", headers={"accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
            content = (await client.get("/", headers={"accept": "application/json"})).json()
            assert (await client.get("/")).headers["content-type"].startswith("text/html")
        assert ("knows drawn shapes and words, not photographs" in page.text) == is_told
        assert ("--model florence-2-base" in (content["notice"] or "")) == is_told
        assert ("only requests for florence-2-demo reach it" in page.text) == is_told
        assert content["models"][0] == settings.get("model", ["florence-2-demo"])[0]
        assert content["links"] == {"routes": "/docs", "errors": "/docs/errors", "readiness": "/readiness"}


async def test_base_is_never_answered_by_the_demo() -> None:
    asked: list[str] = []

    def load(source: str) -> FakeEngine:
        asked.append(source)
        return FakeEngine()

    async with client_of(loader=load) as client:
        for name in ("florence-2-base", "florence-pretrains/1", "florence-2-demo"):
            response = await post(client, model_id=name)
            assert (response.status_code, response.headers["x-model-id"]) == (
                200,
                "florence-2-demo" if "demo" in name else "florence-2-base",
            )
    assert sorted(asked) == ["florence-2-base", "florence-2-demo"]
    async with client_of(loader=load) as client:
        assert (await post(client, model_id=None)).status_code == 422
