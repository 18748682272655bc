"""The SDK: call a Florence-2 server, this project's or any with the same interface.

``InferenceHTTPClient`` has the constructor and the methods of the client that such servers' users know, so that changing the import is
enough. Comes with the plain installation: httpx2, Pillow and numpy, no torch. Errors are in ``florence2.client.errors``.
"""

from __future__ import annotations

from florence2.client.answers import Answer, ModelDescription, RegisteredModels, ServerInfo
from florence2.client.configuration import ApiKeyTransport, HTTPClientMode, InferenceConfiguration, VisualisationResponseFormat
from florence2.client.errors import (
    APIKeyNotProvided,
    CallError,
    CallTimeout,
    ConnectionFailed,
    EncodingError,
    FeatureDeprecatedError,
    HTTPCallErrorError,
    HTTPClientError,
    HTTPServerConnectionError,
    InferenceError,
    InferenceSDKDeprecationWarning,
    InferenceSDKGuidanceWarning,
    InvalidInput,
    InvalidInputFormatError,
    InvalidModelIdentifier,
    InvalidParameter,
    InvalidParameterError,
    InvalidURLImageInput,
    ModelNotInitializedError,
    ModelNotSelected,
    ModelNotSelectedError,
    ModelTaskTypeNotSupportedError,
    RetryError,
    UnexpectedAnswer,
    URLAddressNotAllowedError,
    WrongClientMode,
    WrongClientModeError,
)
from florence2.client.lmm_events import Done, ImageFailed, LmmEvent, ObjectFound, TextDecided
from florence2.client.lmm_iterators import AwaitedLmmStream, LmmStream
from florence2.client.options import LmmOptions, PromptOptions
from florence2.client.service import InferenceHTTPClient

__all__ = [
    "APIKeyNotProvided",
    "Answer",
    "ApiKeyTransport",
    "AwaitedLmmStream",
    "CallError",
    "CallTimeout",
    "ConnectionFailed",
    "Done",
    "EncodingError",
    "FeatureDeprecatedError",
    "HTTPCallErrorError",
    "HTTPClientError",
    "HTTPClientMode",
    "HTTPServerConnectionError",
    "ImageFailed",
    "InferenceConfiguration",
    "InferenceError",
    "InferenceHTTPClient",
    "InferenceSDKDeprecationWarning",
    "InferenceSDKGuidanceWarning",
    "InvalidInput",
    "InvalidInputFormatError",
    "InvalidModelIdentifier",
    "InvalidParameter",
    "InvalidParameterError",
    "InvalidURLImageInput",
    "LmmEvent",
    "LmmOptions",
    "LmmStream",
    "ModelDescription",
    "ModelNotInitializedError",
    "ModelNotSelected",
    "ModelNotSelectedError",
    "ModelTaskTypeNotSupportedError",
    "ObjectFound",
    "PromptOptions",
    "RegisteredModels",
    "RetryError",
    "ServerInfo",
    "TextDecided",
    "URLAddressNotAllowedError",
    "UnexpectedAnswer",
    "VisualisationResponseFormat",
    "WrongClientMode",
    "WrongClientModeError",
]
