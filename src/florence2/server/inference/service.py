"""The straight path from a checked request to its answer.

Images are fetched in the event loop, read and handed to the engine in a few threads, and the engine's futures awaited. In: an
``InferRequest``. Out: an ``InferResponse``, or a list of them for a list of images. Knows nothing of headers and status codes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from florence2.errors import EngineClosed, Florence2Error, InvalidImage, InvalidPrompt, InvalidRegion, PromptTooLong
from florence2.image_files import Structure
from florence2.images import decode
from florence2.results import Result
from florence2.server.errors import as_json, for_client, with_field
from florence2.server.http.metrics import Metrics, task_label
from florence2.server.http.url_fetch import Fetcher
from florence2.server.inference.decoding import Decoders, is_cheap
from florence2.server.inference.models import AnsweringEngine, LoadedModel, Models
from florence2.server.roboflow import image_field as images
from florence2.server.roboflow.schemas import (
    FailedItem,
    ImageField,
    ImageSize,
    InferRequest,
    InferResponse,
    ItemError,
    PromptField,
    RawAnswer,
)
from florence2.server.settings import Settings
from florence2.tasks.prompt import Prompt, parse_prompt

if TYPE_CHECKING:
    from PIL.Image import Image

Submitted = TypeVar("Submitted")
OPTIONS = ("num_beams", "max_new_tokens", "no_repeat_ngram_size", "scores", "allow_unknown_tag")


@dataclass(frozen=True)
class Outcome:
    """The answers to one request, and what headers tell of it."""

    answers: InferResponse | list[InferResponse | FailedItem]
    model: LoadedModel
    is_cold_start: bool


class Answerer:
    """Answers requests with what one server has."""

    def __init__(self, settings: Settings, models: Models, metrics: Metrics, fetcher: Fetcher) -> None:
        self._settings = settings
        self._models = models
        self._metrics = metrics
        self._fetcher = fetcher
        self._pool = ThreadPoolExecutor(settings.image_threads, thread_name_prefix="florence2-image")
        self._decoders = Decoders(settings)

    async def answer(self, asked: InferRequest, model_id: str, *, key: str, help_root: str, started: float) -> Outcome:
        """The answers to a request whose prompts are checked.

        Args:
            asked: the request.
            model_id: any name of its model.
            key: the name of its key; keys take turns in the engine.
            help_root: for errors in an image's place.
            started: when the request came in, by ``time.perf_counter``.

        Raises:
            Florence2Error: whatever is wrong with the request, the model or the engine.
        """
        fields = asked.image if isinstance(asked.image, list) else [asked.image]
        model, is_cold = await self._models.get(model_id, self._settings.model_wait_s)
        _check_lengths(asked, model.engine)
        jobs = [asyncio.ensure_future(self._one(asked, model, field, started, key)) for field in fields]
        try:
            if isinstance(asked.image, list):
                return Outcome(await _in_order(jobs, asked.on_error, help_root), model, is_cold)
            return Outcome(await jobs[0], model, is_cold)
        finally:
            for job in jobs:
                job.cancel()

    async def close(self) -> None:
        """End decoding at once and the threads once they are done, and close connections."""
        self._decoders.close()
        self._pool.shutdown(wait=False)
        await self._fetcher.close()

    async def _one(self, asked: InferRequest, model: LoadedModel, field: ImageField, started: float, key: str) -> InferResponse:
        """The answer about one image."""
        task = "several" if asked.prompts is not None else task_label(asked.prompt or "")
        began = time.perf_counter()
        try:
            value = await images.fetch(field, self._fetcher)
            results, submitted = await self._ask(asked, model, field, value, key)
        except BaseException as error:
            left = isinstance(error, asyncio.CancelledError)
            self._metrics.answers.labels(model.id, task, "cancelled" if left else for_client(error).code).inc()  # type: ignore[arg-type]
            if not left:
                self._metrics.recent.note(model.id, None)
            raise
        self._metrics.note_answer(model.id, task, results, _source_label(field), submitted - began, time.perf_counter() - submitted)
        return _response(asked, results, time.perf_counter() - started)

    async def _ask(self, asked: InferRequest, model: LoadedModel, field: ImageField, value: object, key: str) -> tuple[list[Result], float]:
        """The engine's answers, and when it was asked. A model that is gone, or whose engine is dead, is loaded again, once."""
        try:
            return await self._wait(asked, model.engine, field, value, key)
        except EngineClosed:
            self._models.discard(model)
            again, _ = await self._models.get(model.id, self._settings.model_wait_s)
            return await self._wait(asked, again.engine, field, value, key)

    async def _wait(
        self, asked: InferRequest, engine: AnsweringEngine, field: ImageField, value: object, key: str
    ) -> tuple[list[Result], float]:
        """Submit, and wait; whoever stops waiting takes his prompts out of the engine."""
        futures = [asyncio.wrap_future(future) for future in await self._submit(asked, engine, field, value, key)]
        submitted = time.perf_counter()
        try:
            await asyncio.wait(futures, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for future in futures:
                future.cancel()
        errors = [future.exception() for future in futures if future.done() and not future.cancelled()]
        for error in errors:
            if error is not None:
                raise error
        if any(future.cancelled() for future in futures):
            raise EngineClosed("the model was closed before it had answered; send the request again")
        return [future.result() for future in futures], submitted

    async def _submit(
        self, asked: InferRequest, engine: AnsweringEngine, field: ImageField, value: object, key: str
    ) -> list[Future[Result]]:
        """Read, decode and submit in a thread; decoding that may cost much has a process of its own."""
        found = await self._in_thread(self._pool.submit(_read_and_submit, asked, engine, field, value, self._settings, key))
        if not isinstance(found, Structure):
            return found
        try:
            picture = await self._decoders.decode(found, auto_orient=not asked.disable_preproc_auto_orient)
        except InvalidImage as error:
            raise images.as_input_error(error) from None
        return await self._in_thread(self._pool.submit(_submit_picture, asked, engine, picture, key))

    async def _in_thread(self, job: Future[Submitted]) -> Submitted:
        """What a thread gives; if nobody waits for it any more, the prompts it has asked are taken back."""
        try:
            return await asyncio.wrap_future(job)
        except asyncio.CancelledError:
            job.add_done_callback(_cancel_what_came)
            raise


def check(asked: InferRequest, settings: Settings) -> int:
    """Refuse, before any work, what can be told from the request alone; how many prompts about how many images it has, multiplied.

    Raises:
        InvalidPrompt, UnknownTask, InvalidRegion: a prompt is missing or wrong; ``field`` names it.
        InvalidImage: an empty list of images.
    """
    num_images = len(asked.image) if isinstance(asked.image, list) else 1
    if not num_images:
        raise InvalidImage("the list of images is empty; send at least one", field="image")
    prompts = prompts_of(asked)
    for index, prompt in enumerate(prompts):
        _check_prompt(prompt, index if asked.prompts is not None else None, asked.allow_unknown_tag, settings.max_prompt_chars)
    return num_images * len(prompts)


def prompts_of(asked: InferRequest) -> list[PromptField]:
    """The prompts of a request: the one, or the several.

    Raises:
        InvalidPrompt: none, or both ways at once.
    """
    if asked.prompts is None:
        if asked.prompt is None:
            raise InvalidPrompt('prompt is missing: send a task such as "<CAPTION>" or "<OD>", or a free text', field="prompt")
        return [PromptField(prompt=asked.prompt, text=asked.text, region=asked.region)]
    for name in ("prompt", "text", "region"):
        if getattr(asked, name) is not None:
            raise InvalidPrompt(
                f'{name} and prompts exclude each other; an entry of prompts is a text or {{"prompt": …, "text": …, "region": …}}',
                field=name,
            )
    if not asked.prompts:
        raise InvalidPrompt("the list of prompts is empty; send at least one", field="prompts")
    return [PromptField(prompt=entry) if isinstance(entry, str) else entry for entry in asked.prompts]


def _check_lengths(asked: InferRequest, engine: AnsweringEngine) -> None:
    """Refuse prompts that are too long for the model; an entry of ``prompts`` is named by its index."""
    for index, prompt in enumerate(prompts_of(asked)):
        with _named(index if asked.prompts is not None else None):
            engine.prepare(parse_prompt(prompt.prompt, text=prompt.text, region=prompt.region, allow_unknown_tag=asked.allow_unknown_tag))


@contextmanager
def _named(index: int | None) -> Iterator[None]:
    """Errors about an entry of ``prompts`` name it; None: there is one prompt only."""
    try:
        yield
    except Florence2Error as error:
        raise (error if index is None else with_field(error, f"prompts[{index}].{error.field}", f"prompts[{index}]: ")) from None


def _check_prompt(prompt: PromptField, index: int | None, allow_unknown_tag: bool, max_chars: int) -> None:
    """Refuse a wrong prompt; ``index`` is its place in ``prompts``."""
    with _named(index):
        length = len(prompt.prompt) + len(prompt.text or "")
        if length > max_chars:
            raise PromptTooLong(f"a prompt has at most {max_chars} characters here, got {length}; shorten it", field="prompt")
        parse_prompt(prompt.prompt, text=prompt.text, region=prompt.region, allow_unknown_tag=allow_unknown_tag)


def _read_and_submit(
    asked: InferRequest, engine: AnsweringEngine, field: ImageField, value: object, settings: Settings, key: str
) -> list[Future[Result]] | Structure:
    """Read one image and queue its prompts, or say what is to be decoded elsewhere. Runs in a thread of the pool."""
    structure = images.read(field, value, settings)
    if not is_cheap(structure):
        return structure
    try:
        picture = decode(structure, "the image", auto_orient=not asked.disable_preproc_auto_orient)
    except InvalidImage as error:
        raise images.as_input_error(error) from None
    return _submit_picture(asked, engine, picture, key)


def _submit_picture(asked: InferRequest, engine: AnsweringEngine, picture: Image, key: str) -> list[Future[Result]]:
    """Queue the prompts on one image. Runs in a thread of the pool: preprocessing costs milliseconds."""
    options: dict[str, Any] = {name: value for name in OPTIONS if (value := getattr(asked, name)) is not None}
    options["keep_image"] = False  # decoded pictures are large, and nobody draws here
    if key:  # where none is asked for, all stand on one account
        options["fair_key"] = key
    if asked.prompts is None:
        (prompt,) = prompts_of(asked)
        return [engine.submit(picture, _bound(prompt, None, picture, asked.allow_unknown_tag), **options)]
    prompts = [_bound(prompt, index, picture, asked.allow_unknown_tag) for index, prompt in enumerate(prompts_of(asked))]
    return engine.submit_many(picture, prompts, **options)


def _bound(prompt: PromptField, index: int | None, picture: Image, allow_unknown_tag: bool) -> Prompt:
    """The prompt for a picture; ``index`` is its index in ``prompts``, None for the only one."""
    with _named(index):
        parsed = parse_prompt(prompt.prompt, text=prompt.text, region=prompt.region, allow_unknown_tag=allow_unknown_tag)
        parsed.region_bins(picture.size)  # refused by its index if it is not inside
        return parsed


def _cancel_what_came(job: Future[Any]) -> None:
    """Nobody waits any more for the answers that a thread has just asked for."""
    if not job.cancelled() and job.exception() is None and isinstance(job.result(), list):
        for future in job.result():
            future.cancel()


async def _in_order(jobs: Sequence[asyncio.Future[InferResponse]], on_error: str, help_root: str) -> list[InferResponse | FailedItem]:
    """The answers to a list of images, or what is wrong with the first bad one, by its index."""
    await asyncio.wait(jobs, return_when=asyncio.ALL_COMPLETED if on_error == "item" else asyncio.FIRST_EXCEPTION)
    answers: list[InferResponse | FailedItem] = []
    failed = [(index, job.exception()) for index, job in enumerate(jobs) if job.done() and not job.cancelled()]
    errors = {index: error for index, error in failed if error is not None}
    for index, error in errors.items():
        if not isinstance(error, Florence2Error):
            raise error
        if isinstance(error, (InvalidImage, InvalidRegion)):
            error = with_field(error, f"image[{index}]" if isinstance(error, InvalidImage) else error.field, f"image[{index}]: ")
            errors[index] = error
        if on_error == "fail" or error.status >= 500 or not isinstance(error, (InvalidImage, InvalidRegion)):
            raise error
    for index, job in enumerate(jobs):
        error = errors.get(index)
        if isinstance(error, Florence2Error):
            answers.append(FailedItem(error=ItemError(**as_json(error, help_root), status=error.status)))
        else:
            answers.append(job.result())
    return answers


def _response(asked: InferRequest, results: Sequence[Result], seconds: float) -> InferResponse:
    """What is sent for one image."""
    width, height = results[0].image_size
    shown = [result.to_dict(coordinates=asked.coordinates) for result in results]
    several = asked.prompts is not None
    response = InferResponse(
        inference_id=asked.id or str(uuid4()),
        time=seconds,
        image=ImageSize(width=width, height=height),
        response=shown if several else shown[0],
    )
    if asked.raw:
        raw = [
            RawAnswer(
                text=result.raw, token_ids=result.token_ids, finish_reason=result.finish_reason, log_probability=result.log_probability
            )
            for result in results
        ]
        response.raw = raw if several else raw[0]
    return response


def _source_label(field: ImageField) -> str:
    kind = field.type.lower()
    return kind if kind in images.KNOWN_TYPES else "unknown"
