"""One session of a user of the known client, written once and run with either: ``session.py PACKAGE URL FOLDER``.

``PACKAGE`` is ``inference_sdk`` or ``florence2.client``: nothing but the import differs. Every case is done with and without
``await``; what comes of it goes to standard output as JSON. With the known client, located objects go through supervision's
``Detections`` too, which is installed beside it.
"""

from __future__ import annotations

import asyncio
import base64
import importlib
import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

KEY = "KEY1234567890"
MODEL = "florence-2-base"
LOCATED = {
    "detection": "<OD>",
    "dense": "<DENSE_REGION_CAPTION>",
    "proposals": "<REGION_PROPOSAL>",
    "grounding": "<CAPTION_TO_PHRASE_GROUNDING>a red square and a yellow star",
    "open_vocabulary": "<OPEN_VOCABULARY_DETECTION>red square",
    "quads": "<OCR_WITH_REGION>",
    "referring": "<REFERRING_EXPRESSION_SEGMENTATION>the red square",
    "region_mask": "<REGION_TO_SEGMENTATION><loc_110><loc_300><loc_292><loc_480>",
}

NAMED = {
    "category": "<REGION_TO_CATEGORY><loc_110><loc_300><loc_292><loc_480>",
    "description": "<REGION_TO_DESCRIPTION><loc_110><loc_300><loc_292><loc_480>",
}


@dataclass(frozen=True)
class Case:
    """One call of one method.

    Attributes:
        method: the method's name.
        given: makes the arguments of the folder with the images.
        options: further arguments by name.
        settings: of the ``InferenceConfiguration``.
        is_hosted: the key goes as to hosted endpoints.
        slash: what stands behind the server's address.
        key: the key.
    """

    method: str = "infer_lmm"
    given: Callable[[Path], tuple[Any, ...]] = lambda folder: ()
    options: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    is_hosted: bool = False
    slash: str = ""
    key: str | None = KEY


def asked(given: Callable[[Path], Any], prompt: str | None = "<CAPTION>", model: str = MODEL, **options: Any) -> Case:
    """A case of ``infer_lmm``."""
    settings = {"settings": options.pop("settings", {})}
    more = {name: options.pop(name) for name in ("is_hosted", "slash", "key") if name in options}
    asked_for = {"model_id": model, **({} if prompt is None else {"prompt": prompt}), **options}
    return Case(given=lambda folder: (given(folder),), options=asked_for, **settings, **more)


def path(folder: Path) -> str:
    return str(folder / "scene.jpg")


def picture(folder: Path) -> Image.Image:
    return Image.open(folder / "scene.png").convert("RGB")


def array(folder: Path) -> np.ndarray:
    return np.asarray(picture(folder))[:, :, ::-1].copy()


def as_text(folder: Path) -> str:
    return base64.b64encode((folder / "scene.jpg").read_bytes()).decode()


def url(folder: Path) -> str:
    return (folder / "url.txt").read_text()


CASES: dict[str, Case] = {
    "path": asked(path),
    "png": asked(lambda folder: str(folder / "scene.png")),
    "turned": asked(lambda folder: str(folder / "turned.jpg"), "<OD>"),
    "picture": asked(picture),
    "array": asked(array),
    "url": asked(url),
    "base64": asked(as_text),
    "data_uri": asked(lambda folder: "data:image/jpeg;base64," + as_text(folder)),
    "list": asked(lambda folder: [path(folder), path(folder), str(folder / "turned.jpg")], "<OD>"),
    "list_at_once": asked(lambda folder: [path(folder)] * 3, settings={"max_concurrent_requests": 3}),
    "list_in_one_body": asked(lambda folder: [path(folder)] * 3, settings={"max_batch_size": 3}),
    "list_of_one": asked(lambda folder: [path(folder)]),
    "list_of_none": asked(lambda folder: []),
    "in_path": asked(path, model_id_in_path=True),
    "in_path_by_id": asked(path, model="florence-pretrains/3", model_id_in_path=True),
    "by_id": asked(path, model="florence-pretrains/1"),
    "few_tokens": asked(path, "<DETAILED_CAPTION>", max_new_tokens=4, enable_thinking=False),
    "slash": asked(path, slash="/"),
    "slash_in_path": asked(path, slash="/", model_id_in_path=True),
    "header": asked(path, settings={"api_key_transport": "header"}),
    "both": asked(path, settings={"api_key_transport": "both"}),
    "hosted": asked(path, is_hosted=True),
    "hosted_header": asked(path, is_hosted=True, settings={"api_key_transport": "header"}),
    "source": asked(path, settings={"source": "src", "source_info": "info", "service_secret": "shh", "count_inference": False}),
    **{name: asked(path, prompt) for name, prompt in {**LOCATED, **NAMED}.items()},
    "no_prompt": asked(path, None),
    "text_after_task": asked(path, "<OD>cat"),
    "missing_text": asked(path, "<OPEN_VOCABULARY_DETECTION>"),
    "unknown_model": asked(path, model="nope/1"),
    "missing_file": asked(lambda folder: "/nope/x.jpg"),
    "no_image": asked(lambda folder: str(folder / "url.txt")),
    "wrong_key": asked(path, key="wrong"),
    "no_key": asked(path, key=None),
    "info": Case("get_server_info"),
    "load": Case("load_model", lambda folder: (MODEL,)),
    "after_load": asked(path),
    "load_unknown": Case("load_model", lambda folder: ("nope/1",)),
    "registry": Case("list_loaded_models"),
    "registry_header": Case("list_loaded_models", settings={"api_key_transport": "header"}),
    "registry_no_key": Case("list_loaded_models", key="wrong"),
    "unload": Case("unload_model", lambda folder: (MODEL,), settings={"api_key_transport": "header"}),
    "unload_legacy": Case("unload_model", lambda folder: (MODEL,)),
    "unload_all": Case("unload_all_models", settings={"api_key_transport": "both"}),
    "after_unload": asked(path),
}


def outcome(package: str, server: str, folder: Path, case: Case, is_awaited: bool) -> dict[str, Any]:
    """What a case gives: its value, or what was raised and is caught as users catch it."""
    library = importlib.import_module(package)
    errors = importlib.import_module({"inference_sdk": "inference_sdk.http.errors"}.get(package, package + ".errors"))
    client = library.InferenceHTTPClient(api_url=server + case.slash, api_key=case.key)
    client.configure(library.InferenceConfiguration(**case.settings))
    if case.is_hosted:
        client.select_api_v0()
    method = getattr(client, case.method + ("_async" if is_awaited else ""), None)
    if method is None:
        return {"absent": True}
    try:
        value = method(*case.given(folder), **case.options)
        return {"value": plain(asyncio.run(value) if is_awaited else value)}
    except errors.HTTPCallErrorError as error:
        return {"refused": error.status_code, "said": error.api_message, "text": str(error)}
    except errors.HTTPClientError as error:
        return {"raised": type(error).__name__, "text": str(error)}


def plain(value: Any) -> Any:
    """A value as JSON has it."""
    return value if isinstance(value, (dict, list, str)) else value.to_dict()


def detected(answer: dict[str, Any]) -> dict[str, Any]:
    """What supervision makes of an answer."""
    import supervision  # pyright: ignore[reportMissingImports]

    size = (answer["image"]["width"], answer["image"]["height"])
    found = supervision.Detections.from_vlm(supervision.VLM.FLORENCE_2, answer["response"], resolution_wh=size)
    return {
        "boxes": found.xyxy.tolist(),
        "labels": [str(label) for label in found.data.get("class_name", ())],
        "corners": np.asarray(found.data.get("xyxyxyxy", ())).tolist(),
        "mask_pixels": [] if found.mask is None else [int(mask.sum()) for mask in found.mask],
        "mask_shape": None if found.mask is None else list(found.mask.shape[1:]),
    }


def main(package: str, server: str, folder: str) -> None:
    """Run every case both ways and print what came of it."""
    warnings.simplefilter("ignore")
    known: dict[str, Any] = {
        name: {
            "blocking": outcome(package, server, Path(folder), case, False),
            "awaited": outcome(package, server, Path(folder), case, True),
        }
        for name, case in CASES.items()
    }
    if package == "inference_sdk":
        known["detections"] = {name: detected(known[name]["blocking"]["value"]) for name in (*LOCATED, *NAMED)}
    print(json.dumps(known))


if __name__ == "__main__":
    main(*sys.argv[1:])
