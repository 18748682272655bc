"""The SDK: call a Florence-2 server, this project's or any with the same interface.

``InferenceHTTPClient`` has the constructor and the methods of the client that such servers' users know, so that changing the import is
enough. Comes with the plain installation: httpx, Pillow and numpy, no torch. Errors are in ``florence2.client.errors``.
"""

from __future__ import annotations

from florence2.client.answers import Answer, ModelDescription, RegisteredModels, ServerInfo
from florence2.client.configuration import ApiKeyTransport, HTTPClientMode, InferenceConfiguration
from florence2.client.errors import (
    CallError,
    CallTimeout,
    ConnectionFailed,
    EncodingError,
    HTTPCallErrorError,
    HTTPClientError,
    HTTPServerConnectionError,
    InferenceError,
    InvalidInput,
    InvalidInputFormatError,
    InvalidParameter,
    InvalidParameterError,
    ModelNotSelected,
    ModelNotSelectedError,
    UnexpectedAnswer,
    WrongClientMode,
    WrongClientModeError,
)
from florence2.client.service import InferenceHTTPClient, LmmOptions

__all__ = [
    "Answer",
    "ApiKeyTransport",
    "CallError",
    "CallTimeout",
    "ConnectionFailed",
    "EncodingError",
    "HTTPCallErrorError",
    "HTTPClientError",
    "HTTPClientMode",
    "HTTPServerConnectionError",
    "InferenceConfiguration",
    "InferenceError",
    "InferenceHTTPClient",
    "InvalidInput",
    "InvalidInputFormatError",
    "InvalidParameter",
    "InvalidParameterError",
    "LmmOptions",
    "ModelDescription",
    "ModelNotSelected",
    "ModelNotSelectedError",
    "RegisteredModels",
    "ServerInfo",
    "UnexpectedAnswer",
    "WrongClientMode",
    "WrongClientModeError",
]
