"""From an inference request in this API's form to one for the inference service.

Prompts are parsed here, once, before any work is done; whatever is wrong with them is refused with the field of the request that holds it.
Knows nothing of bodies and headers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from florence2.errors import InvalidImage, InvalidPrompt
from florence2.server.errors import naming
from florence2.server.inference.admission import Permit
from florence2.server.inference.prompts import parse_bounded
from florence2.server.inference.request import InferenceRequest, RequestPrompt
from florence2.server.inference.tiles import tiles_of
from florence2.server.roboflow.image_field import FieldImage
from florence2.server.roboflow.schemas import InferRequest, PromptField
from florence2.server.settings import Settings
from florence2.url_fetch import Fetcher

OPTIONS = ("num_beams", "max_new_tokens", "no_repeat_ngram_size", "scores")


def inference_request(
    message: InferRequest,
    model_id: str,
    prompts: Sequence[RequestPrompt],
    key_name: str,
    fetcher: Fetcher,
    settings: Settings,
    permit: Permit,
    reserve: Callable[[int], None],
) -> InferenceRequest:
    """The request for the inference service.

    Args:
        message: the request in this API's form.
        model_id: the canonical id of its model.
        prompts: its prompts, parsed.
        key_name: the name of its key; keys take turns in the engine.
        fetcher: fetches URLs of images.
        settings: the server's.
        permit: what it holds of the server's room.
        reserve: as of the request.

    Raises:
        InvalidOption: its tiles are wrong; ``field`` names the field.
    """
    tiles = tiles_of(
        *(message.tiles, message.tile_overlap, message.tiles_only, prompts), is_streamed=message.stream, max_tiles=settings.max_tiles
    )
    fields = message.image if isinstance(message.image, list) else [message.image]
    is_list = isinstance(message.image, list)
    options: dict[str, Any] = {name: value for name in OPTIONS if (value := getattr(message, name)) is not None}
    return InferenceRequest(
        model_id,
        images=[FieldImage(field, index if is_list else None, fetcher, settings) for index, field in enumerate(fields)],
        prompts=prompts,
        options=options,
        key_name=key_name,
        auto_orient=not message.disable_preproc_auto_orient,
        keeps_going=message.on_error == "item" and is_list,
        tiles=tiles,
        reserve=reserve,
        permit=permit,
    )


def parse_prompts(message: InferRequest, max_chars: int) -> list[RequestPrompt]:
    """The prompts of a request, parsed.

    Args:
        message: the request.
        max_chars: the longest prompt in characters, its text included.

    Raises:
        InvalidImage: an empty list of images.
        InvalidPrompt, UnknownTask, InvalidRegion: a prompt is missing or wrong; ``field`` names it.
    """
    if isinstance(message.image, list) and not message.image:
        raise InvalidImage("the list of images is empty; send at least one", field="image")
    parsed = []
    for index, field in enumerate(_prompt_fields(message)):
        where = None if message.prompts is None else f"prompts[{index}]"
        with naming(where):
            prompt = parse_bounded(field.prompt, field.text, field.region, message.allow_unknown_tag, max_chars)
            parsed.append(RequestPrompt(prompt, where))
    return parsed


def _prompt_fields(message: InferRequest) -> list[PromptField]:
    """The prompts as the request holds them: the one, or the several.

    Raises:
        InvalidPrompt: none, or both ways at once.
    """
    if message.prompts is None:
        if message.prompt is None:
            raise InvalidPrompt('prompt is missing: send a task such as "<CAPTION>" or "<OD>", or a free text', field="prompt")
        return [PromptField(prompt=message.prompt, text=message.text, region=message.region)]
    for name in ("prompt", "text", "region"):
        if getattr(message, name) is not None:
            raise InvalidPrompt(
                f'{name} and prompts exclude each other; an entry of prompts is a text or {{"prompt": …, "text": …, "region": …}}',
                field=name,
            )
    if not message.prompts:
        raise InvalidPrompt("the list of prompts is empty; send at least one", field="prompts")
    return [PromptField(prompt=entry) if isinstance(entry, str) else entry for entry in message.prompts]
