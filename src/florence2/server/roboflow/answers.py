"""From what the inference service gives, and the loaded models, to this API's messages, events and headers."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from urllib.parse import quote
from uuid import uuid4

from fastapi.responses import Response

from florence2.results import Result, Usage
from florence2.server.errors import as_json
from florence2.server.inference.models import LoadedModel, Models
from florence2.server.inference.request import ImageAnswer, Outcome
from florence2.server.roboflow.schemas import (
    FailedItem,
    ImageSize,
    InferRequest,
    InferResponse,
    ItemError,
    LoadedModelEntry,
    RawAnswer,
    Registry,
    TokenUsage,
)

PLAIN = "/@+:, "  # beside letters and digits, in the names of models


def write_answers(message: InferRequest, outcome: Outcome, started: float, help_root: str) -> Response:
    """The response to a request.

    Args:
        message: the request.
        outcome: the answers.
        started: when the request came in, by ``time.perf_counter``.
        help_root: the address of the page of errors.
    """
    headers = {
        **model_headers(outcome.model_id, outcome.load_s, outcome.is_cold_start),
        "x-processing-time": f"{time.perf_counter() - started:.6f}",
    }
    return Response(answers_json(message, outcome, started, help_root), media_type="application/json", headers=headers)


def answers_json(message: InferRequest, outcome: Outcome, started: float, help_root: str) -> str:
    """One answer, or a list of them for a list of images, on one line; arguments as in ``write_answers``."""
    texts = [
        _answer(message, answer.results, answer.answered_at - started).model_dump_json(exclude_unset=True)
        if isinstance(answer, ImageAnswer)
        else FailedItem(error=ItemError(**as_json(answer, help_root), status=answer.status)).model_dump_json(exclude_unset=True)
        for answer in outcome.answers
    ]
    return f"[{','.join(texts)}]" if isinstance(message.image, list) else texts[0]


def header_name(model_id: str) -> str:
    """A model's name as a header can hold it: as it is, or where it has other characters than ASCII's as an address has it."""
    return model_id if model_id.isascii() else quote(model_id, safe=PLAIN)


def model_headers(model_id: str, load_s: float, is_cold_start: bool) -> dict[str, str]:
    """The headers about the model that answers, and whether the request had to wait for its loading."""
    headers = {
        "x-model-id": header_name(model_id),
        "x-model-cold-start": str(is_cold_start).lower(),
        "x-model-cold-start-count": str(int(is_cold_start)),
        "x-inference-engine": "florence2",
    }
    if is_cold_start:
        headers["x-model-load-time"] = f"{load_s:.6f}"
        headers["x-model-load-details"] = json.dumps([{"m": model_id, "t": round(load_s, 6)}])
    return headers


def registry(models: Models, shown: Sequence[LoadedModel] | None = None) -> Registry:
    """The loaded models as clients read them, or only some of them."""
    entries = []
    for model in models.loaded if shown is None else shown:
        names = [name for name in (model.id, *models.aliases(model.id)) if name != model.listed_as]
        paths = [f"/infer/lmm/{name}" for name in (model.listed_as, *names)]
        entries.append(LoadedModelEntry(model_id=model.listed_as, request_aliases=names, request_paths=["/infer/lmm", *paths]))
    return Registry(models=entries)


def _answer(message: InferRequest, results: Sequence[Result], seconds: float) -> InferResponse:
    """The answer about one image."""
    width, height = results[0].image_size
    shown = [result.to_dict(coordinates=message.coordinates) for result in results]
    is_list = message.prompts is not None
    response = InferResponse(
        inference_id=message.id or str(uuid4()),
        time=seconds,
        image=ImageSize(width=width, height=height),
        response=shown if is_list else shown[0],
    )
    if message.raw:
        raw = [_raw(result) for result in results]
        response.raw = raw if is_list else raw[0]
    usage = [_usage(result.usage) for result in results if result.usage is not None] if message.usage else []
    if usage:
        response.usage = usage if is_list else usage[0]
    return response


def _usage(usage: Usage) -> TokenUsage:
    return TokenUsage(
        prompt_tokens=usage.num_prompt_tokens,
        image_tokens=usage.num_image_tokens,
        completion_tokens=usage.num_answer_tokens,
        total_tokens=usage.num_prompt_tokens + usage.num_answer_tokens,
        image_cached=usage.is_image_cached,
    )


def _raw(result: Result) -> RawAnswer:
    return RawAnswer(
        text=result.raw, token_ids=result.token_ids, finish_reason=result.finish_reason, log_probability=result.log_probability
    )
