"""What the engine's process does: loads models, queues their requests, and reports what becomes of them.

In: the server's messages, one after the other. Out: messages to the server. Each call runs in a thread of its own or of a small pool, so
that reading never waits. Imports torch. Knows nothing of sockets and signals.
"""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from florence2.engine.engine import Engine, load_here
from florence2.engine.warm_up import warm_up
from florence2.engine_process.lanes import LaneReader
from florence2.engine_process.messages import METHODS, Answered, Beat, Cancel, Failure, Invoke, Load, ModelFacts, Reported, Returned, Submit
from florence2.engine_stats import EngineStats
from florence2.errors import EngineClosed, Florence2Error
from florence2.results import Result
from florence2.tasks.tokenized_prompt import TokenizedPrompt

logger = logging.getLogger(__name__)

NUM_THREADS = 4


class Worker:
    """The engines of the process, by their numbers.

    Args:
        send: takes messages for the server; returns at once.
        lanes: where pictures come in.
    """

    def __init__(self, send: Callable[..., None], lanes: LaneReader) -> None:
        self._send = send
        self._lanes = lanes
        self._engines: dict[int, Engine] = {}
        self._answers: dict[int, list[Future[Result]]] = {}
        self._pool = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="florence2-submit")

    def stats(self) -> dict[int, EngineStats]:
        """What each engine is doing."""
        return {number: engine.stats() for number, engine in list(self._engines.items())}

    def take(self, message: Load | Submit | Invoke | Cancel) -> None:
        """Do what a message asks for; returns at once."""
        if isinstance(message, Cancel):
            for future in self._answers.get(message.call, [])[message.index : message.index + 1]:
                future.cancel()
        elif isinstance(message, Submit):
            self._pool.submit(self._answer, message.call, partial(self._submit, message))
        else:  # may take long
            work = partial(self._load, message) if isinstance(message, Load) else partial(self._invoke, message)
            threading.Thread(target=self._answer, args=(message.call, work), name="florence2-call", daemon=True).start()

    def _answer(self, call: int, work: Callable[[], Any]) -> None:
        """Send what the work returns or raises."""
        try:
            value = work()
        except BaseException as error:
            self._send(Returned(call, failure=Failure.of(error)))
        else:
            self._send(Returned(call, value))

    def _load(self, message: Load) -> tuple[ModelFacts, int]:
        """Load a model; what the server has to know of it, and its number."""
        options = message.options
        try:
            engine = load_here(
                options.source,
                device=options.device,
                precision=options.precision,
                adapters=options.adapters,
                image_cache_bytes=options.image_cache_bytes,
            )
            if options.is_warmed_up:
                warm_up(engine)
        except Florence2Error:
            raise
        except BaseException:
            logger.exception("loading %s failed", options.source)
            raise
        facts = facts_of(engine)
        self._engines[message.call] = engine
        self._send(Beat(self.stats()))  # so that its memory is known before anything is decided by it
        # What is there now stays: it need not be looked through again and again while requests wait.
        gc.collect()
        gc.freeze()
        return facts, message.call

    def _engine(self, number: int) -> Engine:
        engine = self._engines.get(number)
        if engine is None:
            raise EngineClosed("the engine is closed; load a new one")
        return engine

    def _invoke(self, message: Invoke) -> Any:
        """Call a method of an engine."""
        if message.method not in METHODS:
            raise ValueError(message.method)
        engine: Any = self._engine(message.model)
        if message.method == "close":
            del self._engines[message.model]
        return getattr(engine, message.method)(**message.arguments)

    def _submit(self, message: Submit) -> None:
        """Queue prompts about a picture."""
        engine = self._engine(message.model)
        picture = self._lanes.read(message.lane, message.layout)
        prompts = [TokenizedPrompt(prompt, ids, engine.tokenizer) for prompt, ids in message.prompts]
        on_event = (lambda event: self._send(Reported(message.call, event))) if message.is_streamed else None
        futures = engine.submit_many(picture, prompts, on_event=on_event, **message.options)  # type: ignore[arg-type]
        self._answers[message.call] = futures
        left = [len(futures)]
        lock = threading.Lock()
        for index, future in enumerate(futures):
            future.add_done_callback(partial(self._note_outcome, message.call, index, left, lock))

    def _note_outcome(self, call: int, index: int, left: list[int], lock: threading.Lock, future: Future[Result]) -> None:
        """Send the outcome of one prompt. Runs in the engine's thread."""
        if future.cancelled():
            self._send(Answered(call, index))
        elif (error := future.exception()) is not None:
            self._send(Answered(call, index, failure=Failure.of(error)))
        else:
            self._send(Answered(call, index, future.result()))
        with lock:
            left[0] -= 1
            if not left[0]:
                self._answers.pop(call, None)


def facts_of(engine: Engine) -> ModelFacts:
    """What the server has to know of a model."""
    checkpoint = engine.checkpoint
    return ModelFacts(
        tokenizer=engine.tokenizer.to_json(),
        folder=engine.tokenizer.folder,
        image=checkpoint.image,
        generation=checkpoint.generation,
        num_image_tokens=checkpoint.config.vision.num_image_tokens(checkpoint.image.height, checkpoint.image.width),
        max_prompt_tokens=engine.max_prompt_tokens,
        max_answer_tokens=engine.max_answer_tokens,
        device=str(engine.device),
        precision=engine.precision,
    )
