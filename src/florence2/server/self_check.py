"""``florence2 serve --check``: would this configuration work?

Loads every model that is named, asks each one image per task through the application itself, key and all, and reports: the settings
that were changed, each model with its answers and their times, a verdict. Knows nothing of sockets.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import httpx2
from PIL import Image, ImageDraw

from florence2.console import json_line, shown
from florence2.errors import Florence2Error, InvalidOption
from florence2.server.app import create_app
from florence2.server.http.process import ServerFailed
from florence2.server.settings import Settings
from florence2.tasks.table import TASKS
from florence2.version import __version__
from florence2.weights.aliases import DEMO, DEMO_IS, REAL

SIZE = (160, 120)
EXAMPLES: dict[str | None, dict[str, Any]] = {None: {}, "text": {"text": "a red square"}, "region": {"region": [40, 30, 120, 90]}}
MAX_TOKENS = 16  # enough to see it work, little enough for a slow machine
LONGEST_ANSWER = 60


@dataclass
class TaskReport:
    """One task's answer, or its error."""

    task: str
    seconds: float
    answer: Any = None
    error: str | None = None


@dataclass
class ModelReport:
    """One model: how it was loaded, or why it was not, and its answers."""

    id: str
    device: str | None = None
    precision: str | None = None
    load_seconds: float | None = None
    error: str | None = None
    tasks: list[TaskReport] = field(default_factory=list)

    @property
    def num_failed(self) -> int:
        """The number of things that did not work."""
        return (self.error is not None) + sum(task.error is not None for task in self.tasks)


def run_check(settings: Settings, changed: Mapping[str, tuple[Any, str]], unread: Sequence[str] = (), *, as_json: bool = False) -> None:
    """Check a configuration and print a report.

    Args:
        settings: the configuration.
        changed: the settings that are not as by default, with where they were set.
        unread: lines about names that look like settings and are none.
        as_json: one object instead of lines.

    Raises:
        InvalidOption: the settings do not fit together.
        ServerFailed: a model could not be loaded, or did not answer.
    """
    if settings.image_folder is not None and not settings.image_folder.is_dir():
        raise InvalidOption(f"the image folder {str(settings.image_folder)!r} is not there", field="image_folder")
    if not as_json:
        _print_settings(changed, unread)
        if settings.is_demo_by_default:
            print(f"\nno --model is given: {DEMO} is {DEMO_IS}; --model {REAL} is for those")
    models = asyncio.run(_check_all(settings, is_shown=not as_json))
    num_failed = sum(model.num_failed for model in models)
    if as_json:
        values = {name: value for name, (value, _) in changed.items()}
        report = {"ok": not num_failed, "settings": values, "unread": list(unread), "models": [asdict(model) for model in models]}
        print(json_line(report), flush=True)
    if num_failed:
        raise ServerFailed(f"the check found {num_failed} fault{'s' * (num_failed > 1)}; the report says where")
    if not as_json:
        count = sum(len(model.tasks) for model in models)
        print(f"\nall is well: {count} answers of {len(models)} model{'s' * (len(models) != 1)}", flush=True)


def _print_settings(changed: Mapping[str, tuple[Any, str]], unread: Sequence[str]) -> None:
    print(f"florence2 {__version__}\n\nsettings{'' if changed else ': all by default'}")
    for name, (value, origin) in changed.items():
        print(shown(f"  {name} = {json.dumps(value, ensure_ascii=False)}  ({origin})"))
    for line in unread:
        print(shown(f"  {line}"))


async def _check_all(settings: Settings, *, is_shown: bool) -> list[ModelReport]:
    """Check the models one after the other, so that one that fails does not hide the others."""
    app = create_app(settings)
    server = app.state.server
    key = server.keys.issue()
    query = {} if key is None else {"api_key": key}
    checked = []
    try:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://check", params=query, timeout=None) as client:
            for model_id in server.models.at_start:
                model = ModelReport(model_id)
                checked.append(model)
                await _load(server.models, model)
                if is_shown:
                    _print_model(model)
                if model.error is None:
                    async for report in _answers(client, model_id):
                        model.tasks.append(report)
                        if is_shown:
                            _print_answer(report)
        return checked
    finally:
        await server.close()


async def _load(models: Any, model: ModelReport) -> None:
    try:
        loaded, _ = await models.get(model.id)
    except Florence2Error as error:  # the message for clients leaves out what is private to this machine
        model.error = error.__cause__.message if isinstance(error.__cause__, Florence2Error) else error.message
        return
    model.load_seconds = round(loaded.load_s, 3)
    model.device, model.precision = str(getattr(loaded.engine, "device", "?")), str(getattr(loaded.engine, "precision", "?"))


async def _answers(client: httpx2.AsyncClient, model_id: str) -> AsyncIterator[TaskReport]:
    for tag, task in TASKS.items():
        body = {"model_id": model_id, "prompt": tag, "image": {"type": "base64", "value": _picture()}, "max_new_tokens": MAX_TOKENS}
        began = time.perf_counter()
        response = await client.post("/infer/lmm", json={**body, **EXAMPLES[task.needs]})
        report = TaskReport(tag, round(time.perf_counter() - began, 3))
        content = response.json()
        if response.status_code == 200:
            report.answer = content["response"].get(tag, content["response"])
        else:
            report.error = f"{content.get('message', 'no message')} (HTTP {response.status_code})"
        yield report


def _print_model(model: ModelReport) -> None:
    how = f"FAILED: {model.error}"
    if model.error is None:
        how = f"on {model.device} in {model.precision}, loaded in {model.load_seconds:.1f} s"
    print()
    print(shown(f"{model.id} {how}"), flush=True)


def _print_answer(report: TaskReport) -> None:
    answer = json.dumps(report.answer, ensure_ascii=False) if report.error is None else f"FAILED: {report.error}"
    cut = answer if len(answer) <= LONGEST_ANSWER or report.error else f"{answer[:LONGEST_ANSWER]}…"
    print(shown(f"  {report.task:<36} {report.seconds:6.2f} s  {cut}"), flush=True)


def _picture() -> str:
    """A red square, as base64."""
    picture = Image.new("RGB", SIZE, "white")
    ImageDraw.Draw(picture).rectangle((40, 30, 120, 90), fill="red")
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")
