"""An engine of the ingress: prompts are checked here, answers come from the replicas that have the model.

In: requests about image files. Out: results, events and errors, as an engine of one machine gives them. Ray Serve chooses the replica; one
that is lost with its machine is replaced by another, once, as long as no event was sent. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import grpc
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException

from florence2.cluster.messages import Asked, Happened, Reply
from florence2.engine_process.messages import Failure, ModelFacts
from florence2.engine_stats import EngineStats
from florence2.errors import EngineDied, EngineFailed, Florence2Error
from florence2.image_files import Structure
from florence2.results import Result
from florence2.server.errors import Overloaded
from florence2.server.inference.events import Queued, Report
from florence2.server.inference.request import InferenceRequest
from florence2.tasks.prompt import Prompt
from florence2.tasks.tokenized_prompt import TokenizedPrompt, tokenized
from florence2.tasks.tokenizer import Tokenizer

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

logger = logging.getLogger(__name__)

MAX_TRIES = 2
LOST = (RayError, RayServeException, grpc.RpcError, RuntimeError, asyncio.CancelledError)
"""What Serve 2.60 raises where the replica or its node has ended.

By calls of actors ``ActorDiedError``, by gRPC ``ActorUnavailableError``, bare errors of gRPC, ``RuntimeError`` where a connection ended
before its headers; and cancellations that nobody here wished for.
"""
SERIALIZED: dict[str, Any] = {"request_serialization": "pickle", "response_serialization": "pickle"}
"""All that is sent is of modules that both sides have, so that it needs no cloudpickle, which takes several times as long."""
PIECE_BYTES = 1024
SHORT_CHARS, MOST_SHORT = 256, 512
"""Of so many prompts of up to so many characters the tokens are kept: most requests have one of few prompts."""


class ReplicaEngine:
    """One model of the cluster, for one ingress.

    Args:
        handle: of the replicas.
        model_id: the canonical id of the model.
        facts: what is known of it.

    Attributes:
        num_beams: how many beams a request searches with that does not say so itself.
        max_answer_tokens: the most tokens that an answer can have.
    """

    def __init__(self, handle: DeploymentHandle, model_id: str, facts: ModelFacts) -> None:
        self.num_beams, self.max_answer_tokens = facts.generation.num_beams, facts.max_answer_tokens
        plain = handle.options(multiplexed_model_id=model_id, **SERIALIZED)
        self._answer, self._stream = plain.options(method_name="answer"), plain.options(method_name="stream", stream=True)
        self._model_id = model_id
        self._tokenizer = Tokenizer.from_json(facts.tokenizer, facts.folder)
        limits: dict[str, Any] = {"max_tokens": facts.max_prompt_tokens, "num_image_tokens": facts.num_image_tokens}
        self._tokenized: Callable[[Prompt], TokenizedPrompt] = partial(tokenized, tokenizer=self._tokenizer, **limits)
        self._known = lru_cache(MOST_SHORT)(self._tokenized)
        self._num_under_way = 0

    def prepare(self, prompt: Prompt) -> TokenizedPrompt:
        """The prompt with its tokens; refused if it is too long for the model."""
        return (self._known if len(prompt.sentence) <= SHORT_CHARS else self._tokenized)(prompt)

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of text that a token stands for."""
        return self._tokenizer.token_bytes(token_id)

    def stats(self) -> EngineStats:
        """What this ingress has under way; what the replicas do is told by them."""
        return EngineStats(num_running=self._num_under_way)

    async def answer_file(
        self, request: InferenceRequest, file: Structure, report: Report | None, note_queued: Callable[[], None]
    ) -> list[Result]:
        """The results of all prompts; see ``FileEngine``."""
        asked = Asked.of(self._model_id, request, file)
        self._num_under_way += 1
        try:
            reply = await self._reply(asked, None if report is None else _Reporting(report, note_queued))
        except Florence2Error:
            raise
        except Exception as error:
            reply = Failure.of(error)
        finally:
            self._num_under_way -= 1
        if isinstance(reply, Failure):
            raise reply.exception()
        return reply

    def close(self, *, cancel: bool = False) -> None:
        """Nothing: the replicas keep their models."""

    async def _reply(self, asked: Asked, reporting: _Reporting | None) -> Reply:
        """The end of the answer, by another replica where the first one is lost."""
        handle = (self._answer if reporting is None else self._stream).options(session_id=_digest(asked.file))
        for num_tries_left in reversed(range(MAX_TRIES)):
            try:
                if reporting is None:
                    return await handle.remote(asked)
                return await self._streamed(handle, asked, reporting)
            except BackPressureError as error:
                raise Overloaded("the engines have as many requests as they take; send it again in a moment") from error
            except DeploymentUnavailableError as error:
                raise EngineDied from error
            except RayTaskError as error:  # the replica is well, and would fail again
                raise EngineFailed(f"a replica failed with {type(error.cause).__name__}") from error
            except LOST as error:
                if _is_cancelled_here(error):
                    raise
                logger.warning("a replica was lost with a request: %s", type(error).__name__)
                if not num_tries_left or (reporting is not None and reporting.has_begun):
                    raise EngineDied from error
        raise AssertionError

    async def _streamed(self, handle: DeploymentHandle, asked: Asked, reporting: _Reporting) -> Reply:
        responses: Any = handle.remote(asked)
        try:
            async for said in responses:
                if isinstance(said, Happened):
                    reporting.pass_on(said)
                elif isinstance(said, Queued):
                    reporting.note_queued()
                else:
                    return said
        finally:
            responses.cancel()
        raise EngineFailed("a replica ended its answer without a result")


def _is_cancelled_here(error: BaseException) -> bool:
    """Whether a cancellation is this ingress's own wish, and not Serve's."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


class _Reporting:
    """Passes events on.

    Attributes:
        note_queued: to be called once a replica has the prompts in its queue.
        has_begun: an event was passed on.
    """

    def __init__(self, report: Report, note_queued: Callable[[], None]) -> None:
        self.note_queued = note_queued
        self.has_begun = False
        self._report = report

    def pass_on(self, said: Happened) -> None:
        """Report one event."""
        self.has_begun = True
        self._report(said.size, said.event)


def _digest(file: Structure) -> str:
    """What tells a picture from others, for requests about it to meet at one replica.

    Made of the file's length and of pieces of it, because a whole file takes the event loop as long as all the rest: files that are alike
    in all of that meet as well, which harms nothing.
    """
    data, length = file.data, len(file.data)
    pieces = [data] if length <= 3 * PIECE_BYTES else [data[at : at + PIECE_BYTES] for at in (0, length // 2, length - PIECE_BYTES)]
    return hashlib.blake2b(b"".join([length.to_bytes(8, "big"), *pieces]), digest_size=16).hexdigest()


def find_engine(handle: DeploymentHandle, loop: asyncio.AbstractEventLoop, model_id: str) -> ReplicaEngine:
    """The engine of a model, once a replica has it; waits for that. Called in a thread.

    Args:
        handle: of the replicas.
        loop: the event loop of the ingress.
        model_id: the canonical id.

    Raises:
        EngineDied: no replica can be reached.
        Florence2Error: what loading it raises.
    """

    async def ask() -> ModelFacts | Failure:
        return await handle.options(multiplexed_model_id=model_id).facts.remote(model_id)

    try:
        facts = asyncio.run_coroutine_threadsafe(ask(), loop).result()
    except (RayError, RayServeException) as error:
        raise EngineDied from error
    if isinstance(facts, Failure):
        raise facts.exception()
    return ReplicaEngine(handle, model_id, facts)
