"""What the client does, written once for calls with and without ``await``.

Each function is a coroutine over a ``Connection``: identify, fetch, encode, send, read. Lists keep their order and are bounded
in how much of them is under way; an image that fails is a value until it is known whether it fails the call. Knows nothing of
the client's state.
"""

from __future__ import annotations

import copy
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from florence2.client import urls, wire
from florence2.client.answers import ModelDescription, RegisteredModels, ServerInfo, scaled_back, scaled_region, typed
from florence2.client.configuration import InferenceConfiguration
from florence2.client.connection import Connection, exchange, retried
from florence2.client.errors import ConnectionFailed, InferenceError, ModelNotInitializedError, UnexpectedAnswer
from florence2.client.inputs import Encoded, Source, encode, flattened, identify, is_many, remembered
from florence2.client.options import OnError
from florence2.client.wire import Request, Response, Target
from florence2.url_policy import FetchError

Progress = bool | Callable[[int, int], None]
"""True for a bar on standard error, or a function of the images done and all images."""


@dataclass(frozen=True)
class LmmCall:
    """One call of ``infer_lmm``, all but its images.

    Attributes:
        target: where to, and how.
        model_id: the model.
        options: fields of the request beside model, image and key.
        model_id_in_path: whether the path names the model too.
        on_error: whether one bad image of a list fails the call, or only the answer about that image.
        typed: whether answers are ``Answer`` or the server's JSON.
        progress: how a list's progress is shown.
        own_servers: addresses of which it is known whether they are this project's servers; written to.
    """

    target: Target
    model_id: str
    options: Mapping[str, Any]
    model_id_in_path: bool = False
    on_error: OnError = "fail"
    typed: bool = False
    progress: Progress = False
    own_servers: dict[str, bool] = field(default_factory=dict)


class LmmCaller(ABC):
    """What makes a call of the arguments of ``infer_lmm``, whether it is awaited or not."""

    @abstractmethod
    def _lmm_call(
        self,
        model_id: str | None,
        fields: dict[str, Any],
        model_id_in_path: bool,
        on_error: OnError,
        typed: bool,
        progress: Progress,
    ) -> LmmCall:
        """The call, its options checked."""


async def infer(connection: Connection, call: LmmCall, given: Any) -> Any:
    """The answer about an image; for a list the list of answers, in its order.

    Raises:
        InferenceError: the image, or the first of the list with ``on_error="fail"``, has no answer.
    """
    if not is_many(given):
        (outcome,) = await _infer_group(connection, call, [identify(given)])
        if isinstance(outcome, InferenceError):
            raise outcome
        return outcome
    items = flattened(given)
    if not items:
        return []
    # All are looked at before any is sent, so that a misspelt path does not come up after a thousand answers.
    sources = [_settled(_identified(item), index, call) for index, item in enumerate(items)]
    outcomes: list[Any] = list(sources)
    indices = [index for index, source in enumerate(sources) if isinstance(source, Source)]
    size = call.target.configuration.max_batch_size
    groups = [indices[start : start + size] for start in range(0, len(indices), size)]
    with _ProgressReport(call.progress, len(items)) as report:
        report.add(len(items) - len(indices))

        async def answer(group: list[int]) -> None:
            found = await _infer_group(connection, call, [sources[index] for index in group])
            for index, outcome in zip(group, found, strict=True):
                outcomes[index] = _settled(outcome, index, call)
            report.add(len(group))

        await connection.gather([lambda group=group: answer(group) for group in groups], call.target.configuration.max_concurrent_requests)
    return outcomes


async def get_server_info(connection: Connection, target: Target) -> ServerInfo:
    """What the server says about itself."""
    return ServerInfo.from_dict(await _json_object(connection, target, wire.info_request(target)))


async def get_models(connection: Connection, target: Target, request: Request) -> RegisteredModels:
    """The models that are loaded once a request of the registry is done."""
    fields = await _json_object(connection, target, request)
    try:
        return RegisteredModels.from_dict(fields)
    except (KeyError, TypeError) as error:
        raise UnexpectedAnswer(f"the answer to {request.name} does not list models ({type(error).__name__}: {error})") from error


async def describe_model(connection: Connection, target: Target, model_id: str, allow_loading: bool) -> ModelDescription:
    """What the server says about one model, by any of its names.

    Raises:
        ModelNotInitializedError: it is not loaded, even after it was to be.
    """
    requests = [wire.registry_request(target), *([wire.load_request(target, model_id)] if allow_loading else [])]
    for request in requests:
        for model in (await get_models(connection, target, request)).models:
            if model.is_called(model_id):
                return model
    hint = "" if allow_loading else "; allow_loading=True has it loaded"
    raise ModelNotInitializedError(f"the server does not list a model {model_id!r:.80} among those that are loaded{hint}", field="model_id")


async def _infer_group(connection: Connection, call: LmmCall, sources: Sequence[Source]) -> list[Any]:
    """The answers about images that share a request; an ``InferenceError`` instead of a missing one."""
    prepared = [await _prepared(connection, call, source) for source in sources]
    ready = [item for item in prepared if isinstance(item, Encoded)]
    answers: list[Any] = []
    for part in _requests_for(ready, call):
        answers += await _answers(connection, call, part)
    remaining = iter(answers)
    return [next(remaining) if isinstance(item, Encoded) else item for item in prepared]


def _requests_for(images: list[Encoded], call: LmmCall) -> list[list[Encoded]]:
    """The images by request. Regions in pixels hold for one size, so that scaled images can't share a request that has some."""
    if not images:
        return []
    if any(image.sent_size for image in images) and _has_pixel_region(call.options):
        return [[image] for image in images]
    return [images]


async def _prepared(connection: Connection, call: LmmCall, source: Source) -> Encoded | InferenceError:
    """The image as it travels, or what is wrong with it."""
    configuration = call.target.configuration
    try:
        fetched = None
        if source.kind == "url":
            if configuration.send_urls:
                _checked_url(source.value, configuration)
            else:
                fetched = await _fetched(connection, configuration, source.value)
        return await connection.work(lambda: replace(encode(source, configuration, fetched), remembered=remembered(source, configuration)))
    except InferenceError as error:
        return error


async def _fetched(connection: Connection, configuration: InferenceConfiguration, url: str) -> bytes:
    """What an image's URL leads to."""
    policy = urls.policy(configuration)
    errors: list[FetchError] = []

    async def fetch() -> Response:
        try:
            return Response(200, {}, await connection.fetch(url, policy))
        except FetchError as error:
            errors.append(error)
            if error.rule == "connection":
                raise ConnectionFailed(error.reason) from error
            return Response(error.status or 0, {"retry-after": error.retry_after or ""}, b"")

    with suppress(ConnectionFailed):
        response = await retried(connection, fetch, configuration)
        if response.status_code == 200:
            return response.content
    raise urls.error_of(errors[-1], url) from errors[-1]


def _checked_url(url: str, configuration: InferenceConfiguration) -> None:
    """Refuse to leave a URL to the server that the client itself would not fetch."""
    try:
        urls.policy(configuration).checked(url)
    except FetchError as error:
        raise urls.error_of(error, url) from error


async def _answers(connection: Connection, call: LmmCall, images: Sequence[Encoded]) -> list[Any]:
    """The answers to one request, an error for each image that failed: the same for all if the request did."""
    try:
        return await _sent(connection, call, images)
    except InferenceError as failure:
        named, error = wire.item_of(failure)
        if named is not None and call.on_error == "fail" and named < len(images):  # it is the error that the call ends with
            return [error if index == named else None for index in range(len(images))]
        return [error] * len(images)


async def _sent(connection: Connection, call: LmmCall, images: Sequence[Encoded]) -> list[Any]:
    """The outcomes of one request."""
    options = dict(call.options)
    if images[0].sent_size:
        options = _with_scaled_regions(options, images[0])
    if len(images) > 1 and call.on_error == "item" and await _is_own(connection, call):  # an answer or an error for each
        options["on_error"] = "item"
    request = wire.infer_request(
        call.target, call.model_id, [image.as_json for image in images], options, model_id_in_path=call.model_id_in_path
    )
    response = await exchange(connection, request, call.target.configuration)
    body = wire.read_answer(response, request, call.target)
    answers = body if len(images) > 1 else [body]
    if not isinstance(answers, list) or len(answers) != len(images) or not all(isinstance(answer, dict) for answer in answers):
        raise UnexpectedAnswer(f"the answer to {request.name} should hold an object for each of {len(images)} images, got {_form(body)}")
    return [_outcome(answer, image, call) for answer, image in zip(answers, images, strict=True)]


async def _is_own(connection: Connection, call: LmmCall) -> bool:
    """Whether the server is of this project; others are sent no fields that they do not know. Asked once for each client."""
    known = call.own_servers
    if call.target.url not in known:
        try:
            known[call.target.url] = (await get_server_info(connection, call.target)).name == wire.OWN_SERVER
        except InferenceError:
            return False
    return known[call.target.url]


def _outcome(answer: dict[str, Any], image: Encoded, call: LmmCall) -> Any:
    """What the caller gets for one image."""
    failed = answer.get("error")
    if isinstance(failed, dict) and "response" not in answer:
        return wire.error_of_item(failed, call.target)
    try:
        if image.sent_size and image.original_size:
            answer = scaled_back(answer, _seen_size(answer, image.sent_size), image.original_size)
        return typed(answer, image.remembered) if call.typed else answer
    except UnexpectedAnswer as error:
        return error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return UnexpectedAnswer(f"the coordinates of the answer can't be scaled back ({type(error).__name__}: {error})")


def _seen_size(answer: dict[str, Any], sent: tuple[int, int]) -> tuple[int, int]:
    """The size that the answer's coordinates count in: as the server says, or as it was sent."""
    seen = answer.get("image") or {}
    return seen.get("width") or sent[0], seen.get("height") or sent[1]


async def _json_object(connection: Connection, target: Target, request: Request) -> dict[str, Any]:
    body = wire.read_answer(await exchange(connection, request, target.configuration), request, target)
    if not isinstance(body, dict):
        raise UnexpectedAnswer(f"the answer to {request.name} should be an object, got {_form(body)}")
    return body


def _identified(item: object) -> Source | InferenceError:
    try:
        return identify(item)
    except InferenceError as error:
        return error


def _settled(outcome: Any, index: int, call: LmmCall) -> Any:
    """The outcome of one image of a list: an error gets the index, and is raised unless it stands for its image."""
    if not isinstance(outcome, InferenceError):
        return outcome
    if outcome.index is not None:  # one error of several images
        outcome = copy.copy(outcome)
    outcome.index = index
    if call.on_error == "fail":
        raise outcome
    return outcome


def _has_pixel_region(options: Mapping[str, Any]) -> bool:
    regions = [options.get("region"), *(prompt.get("region") for prompt in options.get("prompts") or () if isinstance(prompt, Mapping))]
    return any(region is not None and not isinstance(region, str) for region in regions)


def _with_scaled_regions(options: dict[str, Any], image: Encoded) -> dict[str, Any]:
    original, sent = image.original_size, image.sent_size
    if original is None or sent is None:
        return options
    if options.get("region") is not None:
        options["region"] = scaled_region(options["region"], original, sent)
    if options.get("prompts"):
        options["prompts"] = [
            {**prompt, "region": scaled_region(prompt["region"], original, sent)}
            if isinstance(prompt, Mapping) and prompt.get("region") is not None
            else prompt
            for prompt in options["prompts"]
        ]
    return options


def _form(body: Any) -> str:
    return f"a list of {len(body)}" if isinstance(body, list) else type(body).__name__


class _ProgressReport:
    """A list's progress: a bar, calls of a function, or nothing. May be added to from any thread."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._report = progress if callable(progress) else None
        self._has_bar = progress is True
        self._total = total
        self._done = 0
        self._lock = threading.Lock()
        self._open = ExitStack()

    def __enter__(self) -> _ProgressReport:
        if self._has_bar:
            self._report = self._open.enter_context(_bar())
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def add(self, num_images: int) -> None:
        """Report so many more images as done."""
        with self._lock:
            self._done += num_images
            if self._report and num_images:
                self._report(self._done, self._total)


def _bar() -> AbstractContextManager[Callable[[int, int], None]]:
    """A bar on standard error, as a function of done and total."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    class Shown(Bar):
        def __enter__(self) -> Any:
            super().__enter__()
            task = self.add_task("images", total=None)
            return lambda done, total: self.update(task, completed=done, total=total)

    return Shown(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=Console(stderr=True))
