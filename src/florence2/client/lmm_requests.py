"""The images of a call on their way into requests, and what comes of them.

In: images as they were given, and a call. Out: images that are ready to be sent, requests, and for each image its outcome: the caller's
answer, or an ``InferenceError``, which is a value until it is known whether it fails the call. Shared by answers that are whole and those
that are streamed. Knows nothing of the client's state.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from florence2.client import urls, wire
from florence2.client.answers import scaled_back, scaled_region, typed
from florence2.client.configuration import InferenceConfiguration
from florence2.client.connection import Connection
from florence2.client.errors import ConnectionFailed, InferenceError, InvalidParameter, UnexpectedAnswer
from florence2.client.inputs import Encoded, Source, encode, identify, remembered
from florence2.client.management import get_server_info
from florence2.client.options import OnError
from florence2.client.progress import Progress
from florence2.client.retries import retried
from florence2.client.wire import Request, Response, Target
from florence2.url_policy import FetchError


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
        method: str,
        model_id: str | None,
        fields: dict[str, Any],
        model_id_in_path: bool,
        on_error: OnError,
        typed: bool,
        progress: Progress,
    ) -> LmmCall:
        """The call of the method of this name, its options checked."""


def identified(items: Sequence[Any], call: LmmCall) -> list[Source | InferenceError]:
    """What each item of a list was found to be.

    All are looked at before any is sent, so that a misspelt path does not come up after a thousand answers.
    """
    return [settled(_identified(item), index, call) for index, item in enumerate(items)]


def groups_of(sources: Sequence[Source | InferenceError], call: LmmCall) -> list[list[int]]:
    """The indices of the images that share requests, as many in each as the configuration says."""
    indices = [index for index, source in enumerate(sources) if isinstance(source, Source)]
    size = call.target.configuration.max_batch_size
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def settled(outcome: Any, index: int, call: LmmCall) -> Any:
    """The outcome of one image of a list: an error gets the index, and is raised unless it stands for its image."""
    if not isinstance(outcome, InferenceError):
        return outcome
    if outcome.index is not None:  # one error of several images
        outcome = copy.copy(outcome)
    outcome.index = index
    if call.on_error == "fail":
        raise outcome
    return outcome


def requests_for(images: list[Encoded], call: LmmCall) -> list[list[Encoded]]:
    """The images by request. Regions in pixels hold for one size, so that scaled images can't share a request that has some."""
    if not images:
        return []
    if any(image.sent_size for image in images) and _has_pixel_region(call.options):
        return [[image] for image in images]
    return [images]


async def prepared(connection: Connection, call: LmmCall, source: Source) -> Encoded | InferenceError:
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


async def request_for(connection: Connection, call: LmmCall, images: Sequence[Encoded], **more: Any) -> Request:
    """The request about images that share one.

    Args:
        connection: asks once whose server it is, where that decides what is sent.
        call: the call.
        images: the images, ready to be sent.
        more: fields beside those of the call.

    Raises:
        InvalidParameter: tiles are asked of a server that does not know them.
    """
    options = {**call.options, **more}
    if "tiles" in options:
        await _check_tiled(connection, call)
    if images[0].sent_size:
        options = _with_scaled_regions(options, images[0])
    if len(images) > 1 and call.on_error == "item" and await _is_own(connection, call):  # an answer or an error for each
        options["on_error"] = "item"
    return wire.infer_request(
        call.target, call.model_id, [image.as_json for image in images], options, model_id_in_path=call.model_id_in_path
    )


def outcomes_of(body: Any, request: Request, images: Sequence[Encoded], call: LmmCall) -> list[Any]:
    """The outcome for each image of a request, of the JSON of its answer.

    Raises:
        UnexpectedAnswer: it is not an answer about so many images.
    """
    answers = body if len(images) > 1 else [body]
    if not isinstance(answers, list) or len(answers) != len(images) or not all(isinstance(answer, dict) for answer in answers):
        raise UnexpectedAnswer(
            f"the answer to {request.name} should hold an object for each of {len(images)} images, got {wire.form(body)}"
        )
    return [_outcome(answer, image, call) for answer, image in zip(answers, images, strict=True)]


def failures(failure: InferenceError, num_images: int, call: LmmCall) -> list[InferenceError | None]:
    """The error of each image of a request that failed as a whole: the same for all, unless it names the one that the call ends with."""
    named, error = wire.item_of(failure)
    if named is not None and call.on_error == "fail" and named < num_images:
        return [error if index == named else None for index in range(num_images)]
    return [error] * num_images


def _identified(item: object) -> Source | InferenceError:
    try:
        return identify(item)
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


async def _check_tiled(connection: Connection, call: LmmCall) -> None:
    """Refuse tiles for a server that says it is another project's: its answer would look like one in tiles without being one."""
    if not await _is_own(connection, call) and call.own_servers.get(call.target.url) is False:
        raise InvalidParameter(
            f"tiles are known to servers of florence2 alone, and {call.target.url} is none: leave tiles out", field="tiles"
        )


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
