"""From a chat request to one for the inference service.

The prompt is parsed here, once, before any work is done; whatever is wrong with it is refused under the argument that the client sent.
Knows nothing of bodies and headers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from florence2.errors import Florence2Error, InvalidRequest
from florence2.server.errors import UnsupportedArgument, with_field
from florence2.server.inference.admission import Permit
from florence2.server.inference.models import LoadedModel
from florence2.server.inference.prompts import parse_bounded
from florence2.server.inference.request import InferenceRequest, RequestPrompt, Used
from florence2.server.inference.tiles import tiles_of
from florence2.server.openai.conversation import Question
from florence2.server.openai.image_url import UrlImage
from florence2.server.openai.schemas import ChatRequest
from florence2.tasks.prompt import Prompt, Region, read_pixels
from florence2.tasks.table import TASKS
from florence2.tiling.tiles import Tiles

FORMATS = ("text", "json_object")
OPTIONS = ("num_beams", "no_repeat_ngram_size", "scores")


@dataclass(frozen=True)
class Chat:
    """A chat request, checked.

    Attributes:
        message: the request as it was sent.
        image: the picture that its messages show.
        prompt: what they ask, parsed.
        model_id: the canonical id of its model.
        key_name: the name of its key; keys take turns in the engine.
        tiles: the parts of the picture that are asked about.
        reserve: as of the request for the inference service.
        note_used: as of the same.
        permit: what it holds of the server's room.
    """

    message: ChatRequest
    image: UrlImage
    prompt: Prompt
    model_id: str
    key_name: str
    tiles: Tiles | None
    reserve: Callable[[int], None]
    note_used: Callable[[Used], None]
    permit: Permit


def check_format(message: ChatRequest) -> None:
    """Refuse a form of the answer that there is not, and arguments that another form would need.

    Raises:
        UnsupportedArgument: ``field`` names the argument.
    """
    wanted = message.response_format.type if message.response_format is not None else "text"
    if wanted not in FORMATS:
        raise UnsupportedArgument(
            f'response_format of type {wanted!r} is not offered here: send {{"type": "json_object"}} for the parsed answer, whose form is '
            "the task's (docs/tasks.md)",
            field="response_format",
        )
    for name in ("scores", "coordinates"):
        if getattr(message, name) and wanted != "json_object":
            raise UnsupportedArgument(f'{name} needs response_format={{"type": "json_object"}}', field=name)
    if None not in (message.max_tokens, message.max_completion_tokens) and message.max_tokens != message.max_completion_tokens:
        raise InvalidRequest("max_tokens and max_completion_tokens are one argument by two names: send one of them", field="max_tokens")


def parse(message: ChatRequest, question: Question, max_chars: int) -> Prompt:
    """The prompt of a question.

    A region in pixels may stand behind the tag as four numbers, as a chat has no other place for it.

    Args:
        message: the request.
        question: what its messages ask.
        max_chars: the longest prompt in characters.

    Raises:
        InvalidPrompt, UnknownTask, InvalidRegion: the prompt is wrong.
    """
    text, region = question.text, message.region
    if region is None:
        text, region = _apart(text)
    return parse_bounded(text, message.text, region, bool(message.allow_unknown_tag), max_chars)


def parse_tiles(message: ChatRequest, prompt: Prompt, max_tiles: int) -> Tiles | None:
    """The tiles that a request asks for; None where it asks for none.

    Args:
        message: the request.
        prompt: its prompt.
        max_tiles: the most tiles of a picture.

    Raises:
        InvalidOption: they are wrong, or do not go with the prompt or a stream.
        UnsupportedArgument: ``logprobs`` is asked for, too.
    """
    fields = (message.tiles, message.tile_overlap, bool(message.tiles_only))
    tiles = tiles_of(*fields, [RequestPrompt(prompt)], is_streamed=bool(message.stream), max_tiles=max_tiles)
    if tiles is not None and message.logprobs:
        raise UnsupportedArgument("logprobs are of one generated text, and each tile has its own: leave one of them out", field="logprobs")
    return tiles


def _apart(text: str) -> tuple[str, Region | None]:
    """The text without a region in pixels behind its tag, and that region; None: it has none."""
    task = next((task for task in TASKS.values() if task.needs == "region" and text.startswith(task.tag)), None)
    if task is None or (behind := text.removeprefix(task.tag).strip()).startswith("<") or not behind:
        return text, None
    try:
        return task.tag, read_pixels(behind)
    except ValueError:
        return text, None  # refused with what a region is


def inference_request(chat: Chat, model: LoadedModel) -> InferenceRequest:
    """The request for the inference service.

    Args:
        chat: the request in this API's form.
        model: what answers.
    """
    message = chat.message
    options: dict[str, Any] = {name: value for name in OPTIONS if (value := getattr(message, name)) is not None}
    limit = message.max_completion_tokens or message.max_tokens
    if limit is not None:
        # An upper limit is kept by a lower one; clients send one that fits all of their models.
        options["max_new_tokens"] = min(limit, model.engine.max_answer_tokens)
    return InferenceRequest(
        model.id,
        images=[chat.image],
        prompts=[RequestPrompt(chat.prompt)],
        options=options,
        key_name=chat.key_name,
        tiles=chat.tiles,
        reserve=chat.reserve,
        note_used=chat.note_used,
        permit=chat.permit,
    )


@contextmanager
def naming_arguments(message: ChatRequest) -> Iterator[None]:
    """Let errors raised within name the messages where these hold the text or region at fault, unless it was sent apart."""
    try:
        yield
    except Florence2Error as error:
        if error.field in ("text", "region") and getattr(message, error.field) is None:
            raise with_field(error, "messages") from None
        raise
