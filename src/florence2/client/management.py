"""What a server says about itself and its models.

Each function is a coroutine over a ``Connection``: send, read. Knows nothing of images and of the client's state.
"""

from __future__ import annotations

from typing import Any

from florence2.client import wire
from florence2.client.answers import ModelDescription, RegisteredModels, ServerInfo
from florence2.client.connection import Connection
from florence2.client.errors import ModelNotInitializedError, UnexpectedAnswer
from florence2.client.retries import exchange
from florence2.client.wire import Request, Target


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


async def _json_object(connection: Connection, target: Target, request: Request) -> dict[str, Any]:
    body = wire.read_answer(await exchange(connection, request, target.configuration), request, target)
    if not isinstance(body, dict):
        raise UnexpectedAnswer(f"the answer to {request.name} should be an object, got {wire.form(body)}")
    return body
