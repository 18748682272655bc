"""The parts of the API's description that can't be read off a signature."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from florence2.server.roboflow.schemas import InferRequest


def infer_body() -> dict[str, Any]:
    """The ways to write the body of ``/infer/lmm``, for the API's description."""
    schema = InferRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    properties = {name: part for name, part in schema["properties"].items() if name != "image"}
    form = {"type": "object", "properties": {"image": {"type": "string", "format": "binary"}, **properties}}
    return {
        "application/json": {"schema": _inlined(InferRequest)},
        "multipart/form-data": {"schema": _without_refs(form)},
        "image/*": {"schema": {"type": "string", "format": "binary", "description": "The image; all fields in the query."}},
    }


def json_body(kind: type[BaseModel]) -> dict[str, Any]:
    """A JSON body that a route reads by itself, for the API's description."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": _inlined(kind)}}}}


def _inlined(kind: type[BaseModel]) -> dict[str, Any]:
    """A message's schema with its parts written out where they are used."""
    schema = kind.model_json_schema()
    return _resolve(schema, schema.get("$defs", {}))


def _without_refs(schema: dict[str, Any]) -> dict[str, Any]:
    return _resolve(schema, InferRequest.model_json_schema().get("$defs", {}))


def _resolve(part: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(part, list):
        return [_resolve(entry, definitions) for entry in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        return _resolve(definitions[part["$ref"].rpartition("/")[2]], definitions)
    return {name: _resolve(entry, definitions) for name, entry in part.items() if name != "$defs"}
