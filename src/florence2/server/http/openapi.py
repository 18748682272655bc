"""The bodies that routes read by themselves, for the description of all routes."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


def json_body(kind: type[BaseModel]) -> dict[str, Any]:
    """A JSON body, as a route's ``openapi_extra``."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": inlined(kind)}}}}


def inlined(kind: type[BaseModel]) -> dict[str, Any]:
    """A message's schema with its parts written out where they are used."""
    schema = kind.model_json_schema()
    return resolved(schema, schema.get("$defs", {}))


def resolved(part: Any, definitions: dict[str, Any]) -> Any:
    """A part of a schema with what it refers to written out."""
    if isinstance(part, list):
        return [resolved(entry, definitions) for entry in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        return resolved(definitions[part["$ref"].rpartition("/")[2]], definitions)
    return {name: resolved(entry, definitions) for name, entry in part.items() if name != "$defs"}
