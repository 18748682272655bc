"""The straight path from a checked request to its results.

Images are fetched in the event loop, read and handed to the engine in a few threads, and the engine's futures awaited. In: an
``InferenceRequest``. Out: an ``Outcome``, and before it, where answers are streamed, what becomes known of them. Knows no API, no headers
and no status codes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from florence2.awaited_answers import cancelling_queued, results_of
from florence2.errors import EngineClosed, EngineDied, InvalidImage, InvalidRegion, InvalidRequest
from florence2.image_files import Structure
from florence2.images import decode
from florence2.results import Result
from florence2.server.errors import for_client, naming
from florence2.server.inference.answering_engine import AnyEngine, FileEngine, as_file_engine
from florence2.server.inference.decoder_process import NAME
from florence2.server.inference.decoding import Decoders, is_cheap
from florence2.server.inference.events import Crossing, EventRelay, Happening, ImageEvents, Queued, Report
from florence2.server.inference.models import LoadedModel, Models
from florence2.server.inference.observer import CANCELLED, Answered, Failed, Observer
from florence2.server.inference.received_file import HeldBytes, ReceivedFile
from florence2.server.inference.request import ImageAnswer, ImageSource, InferenceRequest, Outcome, Used
from florence2.server.inference.tiles import num_extra_parts
from florence2.server.settings import Settings
from florence2.tiling.tiles import Tiles

if TYPE_CHECKING:
    from PIL.Image import Image

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Prepared:
    """A request whose prompts are tokenized, for the engine that answers it."""

    request: InferenceRequest
    engine: AnyEngine
    prompts: Sequence[Any]
    is_retry: bool = False


@dataclass
class _Times:
    """When the work on one image got how far, by ``time.perf_counter``."""

    began_at: float = field(default_factory=time.perf_counter)
    fetched_at: float = 0.0
    decoded_at: float = 0.0
    queued_at: float = 0.0


class InferenceService:
    """Answers requests with the models of one server.

    Args:
        settings: the server's.
        models: the loaded models.
        observers: what counts the answers.
    """

    def __init__(self, settings: Settings, models: Models, observers: Sequence[Observer] = ()) -> None:
        self._settings = settings
        self._models = models
        self._observers = observers
        self._pool = ThreadPoolExecutor(settings.image_threads, thread_name_prefix="florence2-image")
        self._decoders = Decoders(settings)
        # A decoded picture may take 150 MB: so few are on their way from the decoders to the engine, the others wait as files.
        self._decoded = asyncio.Semaphore(2 * settings.image_processes)
        self._crossing: Crossing | None = None

    async def answer(self, request: InferenceRequest, relay: EventRelay | None = None) -> Outcome:
        """The answers to a request.

        Args:
            request: the request.
            relay: gets what becomes known of them meanwhile; None: nobody asks.

        Raises:
            Florence2Error: whatever is wrong with the request, the model or the engine.
        """
        model, is_cold = await self._models.get(request.model_id, self._settings.model_wait_s)
        prepared = _prepare(request, model.engine)
        if relay is not None:
            relay.begin(Queued(model.id, model.load_s, is_cold))
        held, jobs = HeldBytes(request), list[asyncio.Future[ImageAnswer]]()
        works = [self._answer_image(prepared, model, index, held, relay and relay.image(index)) for index in range(len(request.images))]
        try:
            if len(works) == 1:  # no task: it would cost several turns of the event loop more
                try:
                    jobs.append(_future(await works[0]))
                except Exception as error:
                    jobs.append(_future(error))
            else:
                jobs += map(asyncio.ensure_future, works)
                await asyncio.wait(jobs, return_when=asyncio.ALL_COMPLETED if request.keeps_going else asyncio.FIRST_EXCEPTION)
            outcome = Outcome(_answers_of(jobs, request.keeps_going), model.id, model.load_s, is_cold)
            if request.permit is not None:
                request.permit.is_answered = True
            return outcome
        finally:
            # What is cancelled still gives back what it holds: that is waited for, as the request's own account ends here.
            try:
                if running := [job for job in jobs if job.cancel()]:
                    await asyncio.wait(running)
            finally:
                request.note_used(_used(model.id, jobs, request.keeps_going))

    async def stream(self, request: InferenceRequest) -> AsyncGenerator[Happening | Outcome, None]:
        """What becomes known of the answers to a request, and at last the outcome that ``answer`` would return.

        ``Queued`` comes first. Closing the generator cancels what is queued or running.

        Raises:
            Florence2Error: as ``answer``; what is wrong with the request is raised before anything is yielded.
        """
        relay = EventRelay(len(request.images), self._crossing_here())
        answering = asyncio.ensure_future(self.answer(request, relay))
        answering.add_done_callback(lambda _: relay.end())
        try:
            async for happening in relay:
                yield happening
            yield answering.result()
        finally:
            answering.cancel()
            await asyncio.wait({answering})
            if not answering.cancelled():
                answering.exception()  # retrieved, even if its reader has left

    def end_idle(self) -> None:
        """End the decoding processes that have been idle for a while."""
        self._decoders.end_idle()

    def close(self) -> None:
        """End decoding at once, and the threads once they are done."""
        self._decoders.close()
        self._pool.shutdown(wait=False)

    def _crossing_here(self) -> Crossing:
        """The way from the engine's threads into the running event loop, one for all requests."""
        loop = asyncio.get_running_loop()
        if self._crossing is None or self._crossing.loop is not loop:
            self._crossing = Crossing(loop)
        return self._crossing

    async def _answer_image(
        self, prepared: _Prepared, model: LoadedModel, index: int, held: HeldBytes, events: ImageEvents | None
    ) -> ImageAnswer:
        """The answer about one image, reported to the observers."""
        image = prepared.request.images[index]
        task, key_name, times = prepared.request.task, prepared.request.key_name, _Times()
        try:
            file = await self._fetch(image, held)
            times.fetched_at = time.perf_counter()
            while True:
                try:
                    if (elsewhere := as_file_engine(prepared.engine)) is not None:
                        results = await self._ask_elsewhere(prepared, elsewhere, file, times, partial(held.note_read, index), events)
                        break
                    futures = await self._queue(prepared, file, times, events and events.callback())
                    held.note_read(index, file.num_bytes)
                    if events is not None:
                        events.note_queued()
                    results = await results_of(futures, "send the request again")
                    break
                except EngineClosed:
                    if prepared.is_retry:
                        raise
                    prepared = await self._prepare_again(prepared, model)
        except BaseException as error:
            held.note_read(index, 0)
            if isinstance(error, EngineDied):
                self._models.discard(model)
            code = CANCELLED if isinstance(error, asyncio.CancelledError) else for_client(error).code  # type: ignore[arg-type]
            failed = Failed(model.id, task, code, key_name, times.began_at, time.perf_counter() - times.began_at)
            self._tell(lambda observer: observer.note_failure(failed))
            if not isinstance(error, InvalidRequest):
                raise
            described = image.describe(error)
            if events is not None and prepared.request.keeps_going and _is_of_image(described):
                events.note_failure(described)
            raise described from None
        answered = _answered(model.id, task, results, image.label, key_name, times, events)
        self._tell(lambda observer: observer.note_answer(answered))
        return ImageAnswer(results, times.began_at + answered.total_s)

    def _tell(self, note: Callable[[Observer], None]) -> None:
        """Report to all observers; what one of them raises fails neither the answer nor the others."""
        for observer in self._observers:
            try:
                note(observer)
            except Exception:
                logger.exception("%s could not note an image", type(observer).__name__)

    async def _prepare_again(self, prepared: _Prepared, model: LoadedModel) -> _Prepared:
        """The request for a new engine: the model was dropped meanwhile, or its engine is dead."""
        self._models.discard(model)
        again, _ = await self._models.get(model.id, self._settings.model_wait_s)
        return _prepare(prepared.request, again.engine, is_retry=True)

    async def _fetch(self, image: ImageSource, held: HeldBytes) -> ReceivedFile:
        """One image as it was sent or found elsewhere."""
        fetched = await image.fetch()
        held.note_fetched(image, fetched)
        return ReceivedFile(image, fetched, self._settings.max_image_pixels)

    async def _queue(self, prepared: _Prepared, file: ReceivedFile, times: _Times, report: Report | None) -> list[Future[Result]]:
        """Put the prompts on one image into the engine's queue."""
        request = prepared.request
        # The threads' lines in the log are the request's.
        job = self._pool.submit(copy_context().run, _submit, prepared, file, times, report)
        with cancelling_queued(job):
            queued = await asyncio.wrap_future(job)
        if queued is not None:
            return queued
        async with self._decoded:
            picture = await self._decode(file.read(), request.auto_orient)
            if request.tiles is not None and not prepared.is_retry:
                request.reserve(num_extra_parts(request.tiles, picture.size, self._settings.max_tiles))
            job = self._pool.submit(copy_context().run, _submit, prepared, file, times, report, picture)
            with cancelling_queued(job):
                return await asyncio.wrap_future(job) or []

    async def _ask_elsewhere(
        self,
        prepared: _Prepared,
        engine: FileEngine,
        file: ReceivedFile,
        times: _Times,
        note_read: Callable[[int], None],
        events: ImageEvents | None,
    ) -> list[Result]:
        """The results of an engine that takes the file of an image and decodes it itself."""
        structure = file.read() if file.is_small else await asyncio.wrap_future(self._pool.submit(copy_context().run, file.read))
        note_read(file.num_bytes)
        request = prepared.request
        if request.tiles is not None and not prepared.is_retry:
            request.reserve(_most_extra_parts(request.tiles, structure, self._settings.max_tiles))
        times.decoded_at = times.queued_at = time.perf_counter()
        report, note_queued = (None, _nothing) if events is None else (events.callback(), events.note_queued)
        results = await engine.answer_file(request, structure, report, note_queued)
        note_queued()
        return results

    async def _decode(self, structure: Structure, auto_orient: bool) -> Image:
        """The image in RGB; a decoding that may cost much has a process of its own."""
        if is_cheap(structure):
            return await asyncio.wrap_future(self._pool.submit(partial(decode, structure, NAME, auto_orient=auto_orient)))
        return await self._decoders.decode(structure, auto_orient=auto_orient)


def _nothing() -> None:
    """For an answer of which nothing is reported meanwhile."""


def _future(outcome: ImageAnswer | Exception) -> asyncio.Future[ImageAnswer]:
    """A future that is done."""
    future: asyncio.Future[ImageAnswer] = asyncio.get_running_loop().create_future()
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
    return future


def _prepare(request: InferenceRequest, engine: AnyEngine, *, is_retry: bool = False) -> _Prepared:
    """The request with its prompts tokenized, once for all images.

    Raises:
        PromptTooLong: a prompt has more tokens than the model takes.
    """
    prompts = []
    for prompt in request.prompts:
        with naming(prompt.where):
            prompts.append(engine.prepare(prompt.prompt))
    return _Prepared(request, engine, prompts, is_retry)


def _submit(
    prepared: _Prepared, file: ReceivedFile, times: _Times, report: Report | None, picture: Image | None = None
) -> list[Future[Result]] | None:
    """Queue the prompts on an image; None: its file was read, and is to be decoded first.

    Runs in a thread of the pool: preprocessing costs milliseconds.
    """
    request = prepared.request
    if picture is None:
        structure = file.read()
        if request.tiles is not None or not is_cheap(structure):  # of an image in tiles the size has to be known before it is queued
            return None
        picture = decode(structure, NAME, auto_orient=request.auto_orient)
    times.decoded_at = time.perf_counter()
    for prompt in request.prompts:
        if prompt.where is not None and prompt.prompt.region is not None:  # the engine's error would not say which of several
            with naming(prompt.where):
                prompt.prompt.region_bins(picture.size)
    options = {**request.options, "keep_image": False}  # decoded images are large, and the server draws nothing
    if request.key_name:
        options["fair_key"] = request.key_name
    if request.tiles is not None:
        options["tiles"] = request.tiles
    if report is not None:
        options["on_event"] = partial(report, picture.size)
    assert not isinstance(prepared.engine, FileEngine)
    futures = prepared.engine.submit_many(picture, prepared.prompts, **options)
    times.queued_at = time.perf_counter()  # here: the event loop may be busy, and the engine has begun
    return futures


def _most_extra_parts(tiles: Tiles, structure: Structure, max_tiles: int) -> int:
    """How many pictures more than one are to be encoded for a picture that is decoded elsewhere, lying or standing.

    Raises:
        InvalidImage: either way it has too many tiles.
    """
    if structure.size is None:  # known once it is decoded: the most that there can be
        return max_tiles
    width, height = structure.size
    sizes = [(width, height), (height, width)] if structure.orientation != 1 else [(width, height)]
    return max(num_extra_parts(tiles, size, max_tiles) for size in sizes)


def _answered(
    model_id: str, task: str, results: list[Result], source: str, key_name: str, times: _Times, events: ImageEvents | None
) -> Answered:
    """What is reported of an image whose results have just come."""
    queued_at = times.queued_at
    first_at = None if events is None else events.first_at
    return Answered(
        *(model_id, task, results, source, key_name),
        began_at=times.began_at,
        fetch_s=times.fetched_at - times.began_at,
        preprocess_s=queued_at - times.fetched_at,
        decode_s=times.decoded_at - times.fetched_at,
        engine_s=time.perf_counter() - queued_at,
        first_s=None if first_at is None else max(first_at - queued_at, 0.0),
    )


def _answers_of(jobs: Sequence[asyncio.Future[ImageAnswer]], keeps_going: bool) -> list[ImageAnswer | InvalidRequest]:
    """The answers about all images; the error of the first image that has one is raised, unless the request keeps going."""
    errors = [job.exception() if job.done() and not job.cancelled() else None for job in jobs]
    for error in errors:
        if error is not None and not (keeps_going and _is_of_image(error)):
            raise error
    return [error if isinstance(error, InvalidRequest) else job.result() for job, error in zip(jobs, errors, strict=True)]


def _used(model_id: str, jobs: Sequence[asyncio.Future[ImageAnswer]], keeps_going: bool) -> Used:
    """What of a request was answered by now."""
    ended = [job for job in jobs if job.done() and not job.cancelled()]
    answers = [job.result() for job in ended if job.exception() is None]
    errors = [error for job in ended if keeps_going and isinstance(error := job.exception(), InvalidRequest) and _is_of_image(error)]
    return Used(model_id, answers, errors)


def _is_of_image(error: BaseException) -> bool:
    """Whether an error is the mistake of one image, which the others need not share."""
    return isinstance(error, (InvalidImage, InvalidRegion)) and error.status < 500
