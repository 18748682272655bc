"""Questions with one field of the wrong type each, made of the schemas: every field of every body with every value."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from florence2.server.openai.schemas import ChatRequest
from florence2.server.roboflow.schemas import InferRequest, ModelRequest
from tests.server.fakes import image_field

VALUES = (
    *("null", "true", "-1", "0.5", "1e400", "NaN", "9" * 25, "-9223372036854775809", '""', '"x"', '"\\u0000"', '"\\ud800"', '"\\u202e"'),
    *("[]", "[[]]", "[null]", "{}", '{"a": {"b": [1]}}', '[1, "x", {}]', "[" * 50 + "]" * 50),
)


def questions(model: str) -> Iterator[tuple[str, bytes]]:
    """Path and body of each."""
    picture = image_field()
    content = [
        {"type": "text", "text": "<OD>"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture['value']}"}},
    ]
    chat = {"model": model, "messages": [{"role": "user", "content": content}], "max_tokens": 3}
    infer = {"model_id": model, "prompt": "<OD>", "image": picture, "max_new_tokens": 3}
    yield from _wrong("/infer/lmm", infer, InferRequest)
    yield from _wrong("/v1/chat/completions", chat, ChatRequest)
    yield from _wrong("/model/add", {"model_id": model}, ModelRequest)
    for written in VALUES:
        for form in ('{{"type": {}, "value": "x"}}', '{{"type": "base64", "value": {}}}', '{{"type": "url", "value": {}}}'):
            yield "/infer/lmm", _written(infer, "image", form.format(written))
        prompt = f'{{"prompt": "<REGION_TO_OCR>", "region": {written}, "text": {written}}}'
        yield "/infer/lmm", _written({**infer, "prompt": None}, "prompts", f"[{prompt}]")
        part = f'{{"type": "image_url", "image_url": {written}}}'
        for said in (written, f"[{part}]", f"[{written}]"):
            yield "/v1/chat/completions", _written(chat, "messages", f'[{{"role": "user", "content": {said}}}]')
        yield "/v1/chat/completions", _written(chat, "messages", f'[{{"role": {written}, "content": "<OD>"}}]')


def _wrong(path: str, fields: dict[str, Any], schema: type[BaseModel]) -> Iterator[tuple[str, bytes]]:
    for name in schema.model_fields:
        for written in VALUES:
            yield path, _written(fields, name, written)


def _written(fields: dict[str, Any], name: str, value: str) -> bytes:
    """The fields as JSON, one of them written as given."""
    others = json.dumps({key: other for key, other in fields.items() if key != name})
    return f'{others[:-1]}{", " if len(others) > 2 else ""}"{name}": {value}}}'.encode()
