"""The parts of the API's description that can't be read off a signature."""

from __future__ import annotations

from typing import Any

from florence2.server.http.openapi import inlined, resolved
from florence2.server.roboflow.schemas import InferRequest


def infer_body() -> dict[str, Any]:
    """The ways to write the body of ``/infer/lmm``, for the API's description."""
    schema = InferRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    properties = {name: part for name, part in schema["properties"].items() if name != "image"}
    form = {"type": "object", "properties": {"image": {"type": "string", "format": "binary"}, **properties}}
    return {
        "application/json": {"schema": inlined(InferRequest)},
        "multipart/form-data": {"schema": resolved(form, InferRequest.model_json_schema().get("$defs", {}))},
        "image/*": {"schema": {"type": "string", "format": "binary", "description": "The image; all fields in the query."}},
    }
