"""The form that errors have for clients of OpenAI's API.

In: an error of this project. Out: ``{"error": {"message", "type", "param", "code", "help_url"}}``. Status and headers are the server's own,
from which the ``openai`` package makes its classes of errors. Knows nothing of routes.
"""

from __future__ import annotations

from typing import Any

from florence2.errors import Florence2Error, PromptTooLong
from florence2.server.errors import NotFound, Overloaded, Unauthorized, as_json

# What programs written for OpenAI's API look for; all other codes are this project's.
CODES: dict[type[Florence2Error], str] = {
    Unauthorized: "invalid_api_key",
    Overloaded: "rate_limit_exceeded",
    PromptTooLong: "context_length_exceeded",
}
# The arguments of this API behind fields of the engine.
_PARAMS = {"model_id": "model", "prompt": "messages", "max_new_tokens": "max_completion_tokens"}
_MESSAGES: dict[type[Florence2Error], str] = {
    Unauthorized: "no key, or one that is not known here: send it as Authorization: Bearer KEY, which the openai package makes of api_key",
    NotFound: "there is no such path: this server has POST /v1/chat/completions, GET /v1/models and GET /v1/models/{id}",
}


def error_body(error: Florence2Error, help_root: str) -> dict[str, Any]:
    """The JSON body of an error.

    Args:
        error: any error whose message the client may read.
        help_root: the address of the page that explains the codes.
    """
    own, kind = as_json(error, help_root), type(error)
    return {
        "error": {
            "message": _MESSAGES.get(kind, own["message"]),
            "type": _type(error),
            "param": None if kind is Unauthorized else _PARAMS.get(own["field"], own["field"]),
            "code": CODES.get(kind, own["code"]),
            "help_url": own["help_url"],
        }
    }


def _type(error: Florence2Error) -> str:
    """Whose mistake it is, in that API's words."""
    if error.status >= 500:
        return "server_error"
    return "rate_limit_error" if error.status == 429 else "invalid_request_error"
