"""Calls of a user of the known client, against a server that only logs: ``calls.py PACKAGE URL IMAGES FOLDER``.

``PACKAGE`` is ``inference_sdk`` or ``florence2.client``. ``IMAGES`` is the address of an image host, ``FOLDER`` has ``dog.jpg``. What
comes of each call, with and without ``await``, goes to standard output as JSON: ``ok``, or the known names of the error's classes.
"""

from __future__ import annotations

import asyncio
import base64
import importlib
import json
import sys
import warnings
from pathlib import Path
from typing import Any

MODEL = "florence-2-base"
HEADER = {"api_key_transport": "header"}
BOTH = {"api_key_transport": "both"}
# Management: the method, its arguments and the settings. Keys of the default transport, where the known client sends none, are left out.
MANAGEMENT: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    "list": ("list_loaded_models", (), {}),
    "list_header": ("list_loaded_models", (), HEADER),
    "list_both": ("list_loaded_models", (), BOTH),
    "load": ("load_model", ("some/1", True), {}),
    "load_header": ("load_model", ("some/1",), HEADER),
    "load_both": ("load_model", ("some/1",), BOTH),
    "unload_header": ("unload_model", ("some/1",), HEADER),
    "unload_both": ("unload_model", ("some/1",), BOTH),
    "unload_all_header": ("unload_all_models", (), HEADER),
    "describe": ("get_model_description", ("florence-pretrains/3",), {}),
    "describe_alias": ("get_model_description", (MODEL,), {}),
    "describe_another": ("get_model_description", ("some/1",), HEADER),
    "describe_not_loaded": ("get_model_description", ("some/1", False), BOTH),
}
KNOWN_ERRORS = (
    *("HTTPClientError", "HTTPCallErrorError", "HTTPServerConnectionError", "InvalidURLImageInput", "URLAddressNotAllowedError"),
    *("InvalidInputFormatError", "InvalidParameterError", "ModelNotInitializedError"),
)


def outcome(
    package: str, server: str, method: str, given: tuple[Any, ...], options: dict[str, Any], settings: dict[str, Any], is_awaited: bool
) -> str:
    """What one call gives."""
    errors = importlib.import_module("inference_sdk.http.errors" if package == "inference_sdk" else f"{package}.errors")
    library = importlib.import_module(package)
    client = library.InferenceHTTPClient(api_url=server, api_key="KEY1234567890")
    client.configure(library.InferenceConfiguration(**settings))
    try:
        answer = getattr(client, f"{method}_async" if is_awaited else method)(*given, **options)
        answer = asyncio.run(answer) if is_awaited else answer
        return "ok" if answer else "nothing"
    except errors.HTTPClientError as error:
        names = [name for name in KNOWN_ERRORS if isinstance(error, getattr(errors, name))]
        return " ".join([*names, str(getattr(error, "status_code", None) or "")]).strip()


def calls(images: str, folder: Path) -> dict[str, tuple[Any, dict[str, Any], dict[str, Any]]]:
    """What is given, the options and the settings, by name."""
    path = str(folder / "dog.jpg")
    text = base64.b64encode(Path(path).read_bytes()).decode()
    return {
        "path": (path, {}, {}),
        "base64": (text, {}, {}),
        "data_uri": (f"data:image/jpeg;base64,{text}", {}, {}),
        "options": (path, {"prompt": "", "max_new_tokens": 20, "enable_thinking": False, "model_id_in_path": True}, {}),
        "no_batch": ([path, path], {}, {"max_batch_size": 0, "max_concurrent_requests": 0}),
        "nested": ([[path, [path]], path], {}, {}),
        "batch": ([path, path], {}, {"max_batch_size": 2}),
        "other_models": (path, {}, {"confidence_threshold": 0.5, "visualize_predictions": True, "format": "json"}),
        "preprocessing": (path, {}, {"source": "s", "source_info": "i", "service_secret": "x", "count_inference": True}),
        "header": (path, {}, {"api_key_transport": "header"}),
        "both": (path, {}, {"api_key_transport": "both"}),
        "url": (f"{images}/dog.jpg", {}, {}),
        "spaces": (f"{images}/a b/ä.jpg?c=d e", {}, {}),
        "redirect": (f"{images}/redirect", {}, {}),
        "gone": (f"{images}/gone", {}, {}),
        "unreachable": ("http://127.0.0.1:9/dog.jpg", {}, {}),
    }


def main(package: str, server: str, images: str, folder: str) -> None:
    """Do all calls and print what came of them."""
    warnings.simplefilter("ignore")
    found = {}
    for name, (given, options, settings) in calls(images, Path(folder)).items():
        for way in ("blocking", "awaited"):
            asked = {"model_id": MODEL, "prompt": "<CAPTION>", **options}
            found[f"{name} {way}"] = outcome(package, server, "infer_lmm", (given,), asked, settings, way == "awaited")
    for name, (method, arguments, settings) in MANAGEMENT.items():
        for way in ("blocking", "awaited"):
            found[f"{name} {way}"] = outcome(package, server, method, arguments, {}, settings, way == "awaited")
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
