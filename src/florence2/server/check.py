"""``florence2 serve --check``: would this configuration work?

Prints the settings, loads every model that is named, and asks each one image per task through the application itself, key and all.
Knows nothing of sockets.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import time
from typing import Any

import httpx2
from PIL import Image, ImageDraw

from florence2.errors import InvalidOption
from florence2.server.app import create_app
from florence2.server.process import ServerFailed
from florence2.server.settings import Settings
from florence2.tasks.table import TASKS

SIZE = (160, 120)
EXAMPLES: dict[str | None, dict[str, Any]] = {None: {}, "text": {"text": "a red square"}, "region": {"region": [40, 30, 120, 90]}}
MAX_TOKENS = 16  # enough to see it work, little enough for a slow machine


def run_check(settings: Settings) -> None:
    """Print what holds and what came of it.

    Raises:
        InvalidOption: the settings do not fit together.
        ServerFailed: a model could not be loaded, or did not answer.
    """
    for name, value in settings.model_dump(mode="json").items():
        print(f"{name} = {json.dumps(value)}{'' if name in settings.model_fields_set else '  (default)'}")
    if settings.image_folder is not None and not settings.image_folder.is_dir():
        raise InvalidOption(f"the image folder {str(settings.image_folder)!r} is not there", field="image_folder")
    failed = asyncio.run(_ask_all(settings))
    if failed:
        raise ServerFailed(f"{failed} of the questions had no answer")
    print("all is well")


async def _ask_all(settings: Settings) -> int:
    """How many questions failed."""
    app = create_app(settings)
    service = app.state.service
    try:
        await service.models.preload()
        for model in service.models.loaded:
            print(f"{model.id} on {getattr(model.engine, 'device', '?')} in {getattr(model.engine, 'precision', '?')}")
        query = {} if service.keys.first is None else {"api_key": service.keys.first}
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://check", params=query, timeout=None) as client:
            return sum([await _ask(client, model.id, tag) for model in service.models.loaded for tag in TASKS])
    finally:
        await service.models.close(cancel=True)
        await service.answerer.close()


async def _ask(client: httpx2.AsyncClient, model_id: str, tag: str) -> bool:
    """Ask one question and print the answer; whether it failed."""
    body = {"model_id": model_id, "prompt": tag, "image": {"type": "base64", "value": _picture()}, "max_new_tokens": MAX_TOKENS}
    began = time.perf_counter()
    response = await client.post("/infer/lmm", json={**body, **EXAMPLES[TASKS[tag].needs]})
    shown = json.dumps(response.json().get("response", response.json()), ensure_ascii=False)
    print(f"{model_id} {tag} {time.perf_counter() - began:.2f} s: {shown if len(shown) <= 100 else shown[:97] + '...'}")
    return response.status_code != 200


def _picture() -> str:
    """A red square, as base64."""
    picture = Image.new("RGB", SIZE, "white")
    ImageDraw.Draw(picture).rectangle((40, 30, 120, 90), fill="red")
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")
