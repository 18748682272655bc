"""From the outcome of the inference service, and the loaded models, to this API's messages and headers."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from uuid import uuid4

from fastapi.responses import Response

from florence2.results import Result
from florence2.server.errors import as_json
from florence2.server.inference.models import Models
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
)


def write_answers(message: InferRequest, outcome: Outcome, started: float, help_root: str) -> Response:
    """The response to a request: one answer, or a list of them for a list of images.

    Args:
        message: the request.
        outcome: the answers.
        started: when the request came in, by ``time.perf_counter``.
        help_root: the address of the page of errors.
    """
    texts = [
        _answer(message, answer.results, answer.answered_at - started).model_dump_json(exclude_unset=True)
        if isinstance(answer, ImageAnswer)
        else FailedItem(error=ItemError(**as_json(answer, help_root), status=answer.status)).model_dump_json(exclude_unset=True)
        for answer in outcome.answers
    ]
    content = f"[{','.join(texts)}]" if isinstance(message.image, list) else texts[0]
    headers = {
        "x-model-id": outcome.model_id,
        "x-model-cold-start": str(outcome.is_cold_start).lower(),
        "x-model-cold-start-count": str(int(outcome.is_cold_start)),
        "x-inference-engine": "florence2",
        "x-processing-time": f"{time.perf_counter() - started:.6f}",
    }
    if outcome.is_cold_start:
        headers["x-model-load-time"] = f"{outcome.load_s:.6f}"
        headers["x-model-load-details"] = json.dumps([{"m": outcome.model_id, "t": round(outcome.load_s, 6)}])
    return Response(content, media_type="application/json", headers=headers)


def registry(models: Models) -> Registry:
    """The loaded models as clients read them."""
    entries = []
    for model in models.loaded:
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
    return response


def _raw(result: Result) -> RawAnswer:
    return RawAnswer(
        text=result.raw, token_ids=result.token_ids, finish_reason=result.finish_reason, log_probability=result.log_probability
    )
