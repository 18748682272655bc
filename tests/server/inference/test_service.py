"""The straight path: few calls from a route to the engine's queue, and each prompt is parsed and tokenized once."""

from __future__ import annotations

import asyncio
import re
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

import florence2
from fixtures.fake_engine import FakeEngine
from florence2.awaited_answers import cancelling_queued
from florence2.engine.engine import Engine, load
from florence2.results import Result
from florence2.server import http, inference
from florence2.server.inference.request import InferenceRequest, RequestPrompt
from florence2.server.inference.service import InferenceService
from florence2.tasks.prompt import Prompt, parse_prompt
from florence2.tasks.tokenizer import Tokenizer
from tests.server.fakes import body, client_of, image_field
from tests.server.process import tiny_checkpoint

pytestmark = pytest.mark.anyio
PACKAGE = str(Path(florence2.__file__).parent)


class WatchedEngine(FakeEngine):
    """Records who has called it: in its thread, and in the event loop behind that."""

    def __init__(self) -> None:
        super().__init__()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.in_thread: list[str] = []
        self.in_tasks: list[list[str]] = []

    async def look(self) -> None:
        self.in_tasks = [list(coroutines(task.get_coro())) for task in asyncio.all_tasks()]

    def submit_many(self, image: Any, prompts: Sequence[Any], **options: Any) -> list[Future[Result]]:
        assert self.loop is not None
        self.in_thread = [name for name in reversed(list(frames())) if name]
        asyncio.run_coroutine_threadsafe(self.look(), self.loop).result(10)  # there, so that all others are suspended
        return super().submit_many(image, prompts, **options)


def name_of(code: CodeType) -> str:
    """The function's name, if it is one of this package."""
    return code.co_name if code.co_filename.startswith(PACKAGE) else ""


def frames() -> Iterator[str]:
    frame = sys._getframe(2)
    while frame is not None:
        yield name_of(frame.f_code)
        frame = frame.f_back


def coroutines(coroutine: Any) -> Iterator[str]:
    while hasattr(coroutine, "cr_code"):
        if name := name_of(coroutine.cr_code):
            yield name
        coroutine = coroutine.cr_await


@pytest.mark.parametrize("path", ["/infer/lmm", "/infer/lmm/florence-2-demo"])
async def test_seven_calls_from_the_route_to_the_queue(path: str) -> None:
    engine = WatchedEngine()
    engine.loop = asyncio.get_running_loop()
    async with client_of(engine) as client:
        assert (await client.post(path, json=body(model_id="florence-2-demo"))).status_code == 200
    (route,) = [names for names in engine.in_tasks if "_infer" in names]
    before = route[: route.index("_infer") - 1]
    calls = [*route[len(before) :], *engine.in_thread, "submit_many"]
    assert set(before) == {"__call__"}  # of the middleware
    assert calls == [
        "infer" if path == "/infer/lmm" else "infer_with_path",
        *("_infer", "unless_client_leaves", "answer", "_answer_image", "_queue", "_submit", "submit_many"),
    ]
    assert len(calls) - 1 <= 7


async def test_a_streamed_request_takes_seven_calls_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the generator in the route's task; from there on in the tasks that work for it while its events are read."""
    engine, route = WatchedEngine(), list[str]()
    engine.loop = asyncio.get_running_loop()
    stream = InferenceService.stream

    def watched(self: InferenceService, request: InferenceRequest) -> Any:
        route.extend([name for name in reversed(list(frames())) if name])
        return stream(self, request)

    monkeypatch.setattr(InferenceService, "stream", watched)
    async with client_of(engine) as client:
        assert (await client.post("/infer/lmm", json=body(model_id="florence-2-demo", stream=True))).status_code == 200
    (answering,) = [names for names in engine.in_tasks if "answer" in names]
    calls = [*route[route.index("infer") :], "stream", *answering, *engine.in_thread, "submit_many"]
    assert calls == ["infer", "_infer", "stream", "answer", "_answer_image", "_queue", "_submit", "submit_many"]
    assert len(calls) - 1 <= 7


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with load(tiny_checkpoint()) as engine:
        yield engine


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often a prompt was parsed or bound, which makes a new ``Prompt``, and tokenized."""
    counts = {"parsed": 0, "tokenized": 0}
    make, encode = Prompt.__init__, Tokenizer.encode

    def counted_make(self: Prompt, *arguments: Any, **named: Any) -> None:
        counts["parsed"] += 1
        make(self, *arguments, **named)

    def counted_encode(self: Tokenizer, sentence: str) -> list[int]:
        counts["tokenized"] += 1
        return encode(self, sentence)

    monkeypatch.setattr(Prompt, "__init__", counted_make)
    monkeypatch.setattr(Tokenizer, "encode", counted_encode)
    return counts


PROMPTS = ["<OD>", {"prompt": "<REGION_TO_CATEGORY>", "region": [1, 2, 30, 40]}, "a free text", "<CAPTION_TO_PHRASE_GROUNDING>a cat"]


@pytest.mark.parametrize(
    ("fields", "num_prompts"),
    [
        ({"prompt": "<OD>"}, 1),
        ({"prompt": "<REGION_TO_CATEGORY>", "region": [1, 2, 30, 40]}, 1),
        ({"prompt": "<OPEN_VOCABULARY_DETECTION>", "text": "a cat", "image": [image_field()] * 3}, 1),
        ({"prompt": None, "prompts": PROMPTS}, 4),
        ({"prompt": None, "prompts": PROMPTS, "image": [image_field()] * 3}, 4),
    ],
)
async def test_each_prompt_is_parsed_and_tokenized_once(
    engine: Engine, counts: dict[str, int], fields: dict[str, Any], num_prompts: int
) -> None:
    async with client_of(engine) as client:  # type: ignore[arg-type]
        response = await client.post("/infer/lmm", json=body(max_new_tokens=2, **fields))
    assert response.status_code == 200, response.text
    assert counts == {"parsed": num_prompts, "tokenized": num_prompts}


def test_a_task_by_which_metrics_count() -> None:
    def task(*prompts: RequestPrompt) -> str:
        return InferenceRequest("m", [], prompts, {}).task

    assert task(RequestPrompt(parse_prompt("<OD>"))) == "<OD>"
    assert task(RequestPrompt(parse_prompt("what is this?"))) == "free"
    assert task(RequestPrompt(parse_prompt("<OD>"), "prompts[0]")) == "several"


@pytest.mark.parametrize("room", [http, inference])
def test_nothing_below_knows_an_api_by_name(room: Any) -> None:
    for path in Path(room.__file__).parent.glob("*.py"):
        text = path.read_text(encoding="utf-8").lower()
        assert not [name for name in ("roboflow", "openai") if re.search(rf"\b{name}\b", text)], path


async def test_what_is_queued_in_the_turn_in_which_its_caller_leaves_is_cancelled() -> None:
    queued: Future[Any] = Future()
    is_due = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(lambda: [queued] if is_due.wait(10) else [])

        async def wait() -> list[Future[Any]]:
            with cancelling_queued(job):
                return await asyncio.wrap_future(job)

        waiting = asyncio.ensure_future(wait())
        await asyncio.sleep(0.01)
        is_due.set()
        time.sleep(0.05)  # the thread is done before the event loop takes its next turn
        await asyncio.sleep(0)  # in which the caller has its result, and does not run yet
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert queued.cancelled()
