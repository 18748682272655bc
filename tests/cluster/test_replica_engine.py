"""What becomes of a request whose replica is lost, by a scripted handle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

ray = pytest.importorskip("ray", reason="Ray has no wheel for this Python and system; the cluster is not tested")

from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError  # noqa: E402
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException  # noqa: E402

from fixtures.fake_engine import answer_to, events_of  # noqa: E402
from fixtures.fake_replica import demo_facts  # noqa: E402
from florence2.cluster.messages import Happened  # noqa: E402
from florence2.cluster.replica_engine import ReplicaEngine  # noqa: E402
from florence2.engine_process.messages import Failure, ModelFacts  # noqa: E402
from florence2.errors import EngineDied, EngineFailed, Florence2Error, InvalidRegion  # noqa: E402
from florence2.image_files import Structure, inspect  # noqa: E402
from florence2.results import Result  # noqa: E402
from florence2.server.errors import Overloaded  # noqa: E402
from florence2.server.inference.events import Queued  # noqa: E402
from florence2.server.inference.request import InferenceRequest, RequestPrompt  # noqa: E402
from florence2.tasks.prompt import parse_prompt  # noqa: E402
from florence2.tasks.tokenizer import Tokenizer  # noqa: E402

SCENE = Path(__file__).parents[2] / "examples" / "scene.png"
RESULT = answer_to(parse_prompt("<OD>"), (480, 480), scores=False)
EVENT = Happened((480, 480), next(iter(events_of(RESULT, 0))))
QUEUED = Queued("florence-2-demo", 0.1, False)
HANGS = object()
CONNECTION_LOST = grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, grpc.aio.Metadata(), grpc.aio.Metadata(), "Stream removed")
LOST = [
    ActorDiedError(),
    ActorUnavailableError("gone", b"a" * 16),
    RayServeException("an upstream actor died"),
    CONNECTION_LOST,
    RuntimeError("Unexpected error (StatusCode.UNKNOWN): nothing."),
    asyncio.CancelledError(),
]


class Handle:
    """Replicas, each call to which goes as the script says: a list of what it yields, the last of which is returned or raised.

    Attributes:
        num_calls: calls so far.
        num_cancelled: calls that were cancelled.
    """

    def __init__(self, *script: list[Any]) -> None:
        self._script = iter(script)
        self.num_calls = self.num_cancelled = 0

    def options(self, method_name: str | None = None, **_: Any) -> Any:
        if method_name is None:
            return self
        return _Method(self._answered if method_name == "answer" else lambda: _Responses(self._steps()))

    async def _answered(self) -> Any:
        said = [one async for one in self._steps()]
        return said[-1]

    async def _steps(self) -> AsyncIterator[Any]:
        self.num_calls += 1
        for step in next(self._script):
            if step is HANGS:
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    self.num_cancelled += 1
                    raise
            if isinstance(step, BaseException):
                raise step
            yield step


class _Method:
    def __init__(self, call: Any) -> None:
        self._call = call

    def options(self, **_: Any) -> _Method:
        return self

    def remote(self, _: Any) -> Any:
        return self._call()


class _Responses:
    def __init__(self, steps: AsyncIterator[Any]) -> None:
        self._steps = steps

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._steps

    def cancel(self) -> None:
        pass


@pytest.fixture(scope="module")
def facts() -> ModelFacts:
    return demo_facts()


@pytest.fixture(scope="module")
def file() -> Structure:
    structure = inspect(SCENE.read_bytes())
    assert structure is not None
    return structure


async def ask(handle: Handle, facts: ModelFacts, file: Structure, *, events: list[Any] | None = None) -> list[Result]:
    engine = ReplicaEngine(handle, "florence-2-demo", facts)  # type: ignore[arg-type]
    request = InferenceRequest("florence-2-demo", [], [RequestPrompt(parse_prompt("<OD>"))], {})
    report = None if events is None else (lambda size, event: events.append(event))
    return await engine.answer_file(request, file, report, lambda: None)


def outcome(handle: Handle, facts: ModelFacts, file: Structure, *, events: list[Any] | None = None) -> Result | Florence2Error:
    async def asked() -> Result | Florence2Error:
        try:
            (result,) = await asyncio.wait_for(ask(handle, facts, file, events=events), 5)
            return result
        except Florence2Error as error:
            return error

    return asyncio.run(asked())


@pytest.mark.parametrize("lost", LOST, ids=lambda error: type(error).__name__)
def test_another_replica_answers_for_one_that_is_lost(lost: BaseException, facts: ModelFacts, file: Structure) -> None:
    handle = Handle([lost], [[RESULT]])
    assert outcome(handle, facts, file) == RESULT
    assert handle.num_calls == 2


@pytest.mark.parametrize("lost", LOST, ids=lambda error: type(error).__name__)
def test_a_request_that_was_lost_twice_is_not_sent_again(lost: BaseException, facts: ModelFacts, file: Structure) -> None:
    handle = Handle([lost], [lost], [[RESULT]])
    error = outcome(handle, facts, file)
    assert isinstance(error, EngineDied)
    assert (handle.num_calls, error.status) == (2, 503)
    assert error.retry_after_s > 0


@pytest.mark.parametrize("lost", LOST, ids=lambda error: type(error).__name__)
def test_a_stream_is_sent_again_only_before_its_first_event(lost: BaseException, facts: ModelFacts, file: Structure) -> None:
    events: list[Any] = []
    handle = Handle([QUEUED, lost], [QUEUED, EVENT, [RESULT]])
    assert outcome(handle, facts, file, events=events) == RESULT
    assert len(events) == 1
    handle = Handle([QUEUED, EVENT, lost], [QUEUED, EVENT, [RESULT]])
    assert isinstance(outcome(handle, facts, file, events=events), EngineDied)
    assert (handle.num_calls, len(events)) == (1, 2)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (BackPressureError(1, 1), Overloaded),
        (DeploymentUnavailableError("Engines"), EngineDied),  # type: ignore[arg-type]
        (KeyError("an error of Serve's own"), EngineFailed),
        (RayTaskError("answer", "traceback", ValueError("a mistake")).as_instanceof_cause(), EngineFailed),
        (Failure.of(InvalidRegion("it is outside the image")), InvalidRegion),
    ],
)
def test_what_another_replica_would_say_as_well_is_not_sent_again(raised: Any, expected: type, facts: ModelFacts, file: Structure) -> None:
    handle = Handle([raised], [[RESULT]])
    assert isinstance(outcome(handle, facts, file), expected)
    assert handle.num_calls == 1


def test_cancelling_ends_the_call_and_is_no_loss(facts: ModelFacts, file: Structure) -> None:
    async def cancelled() -> Handle:
        handle = Handle([HANGS], [[RESULT]])
        asking = asyncio.create_task(ask(handle, facts, file))
        await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        return handle

    handle = asyncio.run(cancelled())
    assert (handle.num_calls, handle.num_cancelled) == (1, 1)


def test_the_prompts_are_noted_as_queued_before_the_first_event(facts: ModelFacts, file: Structure) -> None:
    happened: list[Any] = []

    async def asked() -> list[Result]:
        engine = ReplicaEngine(Handle([QUEUED, EVENT, [RESULT]]), "florence-2-demo", facts)  # type: ignore[arg-type]
        request = InferenceRequest("florence-2-demo", [], [RequestPrompt(parse_prompt("<OD>"))], {})
        return await engine.answer_file(request, file, lambda _, event: happened.append(event), lambda: happened.append("queued"))

    assert asyncio.run(asked()) == [RESULT]
    assert happened == ["queued", EVENT.event]


def test_tokens_of_short_prompts_are_kept(facts: ModelFacts, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = ReplicaEngine(Handle(), "florence-2-demo", facts)  # type: ignore[arg-type]
    encoded: list[str] = []
    encode = Tokenizer.encode
    monkeypatch.setattr(Tokenizer, "encode", lambda self, sentence: encoded.append(sentence) or encode(self, sentence))
    short, other, long = parse_prompt("<OD>"), parse_prompt("<CAPTION>"), parse_prompt("a cat " * 60)
    once = [engine.prepare(prompt) for prompt in (short, other, long)]
    again = [engine.prepare(prompt) for prompt in (parse_prompt("<OD>"), other, long)]
    assert [one.token_ids for one in once] == [one.token_ids for one in again]
    assert [one.prompt for one in again] == [short, other, long]
    assert encoded == [short.sentence, other.sentence, long.sentence, long.sentence]
