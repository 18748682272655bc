"""What the page asks the server about before anything else: models, tasks, examples, limits. Holds nothing that a key protects."""

from __future__ import annotations

from functools import cache
from typing import Any

from florence2.images import size_of
from florence2.server.http.state import ServerState
from florence2.server.playground.page_files import ASSETS_PATH, FILES
from florence2.tasks.table import TASKS
from florence2.version import __version__

EXAMPLES = "examples/"


def page_config(server: ServerState) -> dict[str, Any]:
    """The answer to ``/playground/config``."""
    settings, models = server.settings, server.models.known
    return {
        "version": __version__,
        "needs_key": not server.keys.is_open,
        "models": models,
        "default_model": models[0] if models else None,
        "tasks": [{"tag": task.tag, "name": task.name, "kind": task.kind, "needs": task.needs} for task in TASKS.values()],
        "examples": [{**example, "url": settings.root_path + example["url"]} for example in _examples()],
        "max_body_bytes": settings.max_body_bytes,
        "max_image_pixels": settings.max_image_pixels,
        "max_prompt_chars": settings.max_prompt_chars,
        "allow_urls": settings.allow_urls,
        "notice": server.notice,
        "root_path": settings.root_path,
    }


@cache
def _examples() -> tuple[dict[str, Any], ...]:
    """The pictures that the page offers, each with its size in pixels."""
    found = []
    for name in FILES.names:
        if name.startswith(EXAMPLES):
            width, height = size_of(FILES.read_bytes(name)) or (0, 0)
            found.append({"name": name.removeprefix(EXAMPLES), "url": f"{ASSETS_PATH}/{name}", "width": width, "height": height})
    return tuple(found)
