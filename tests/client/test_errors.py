from __future__ import annotations

import copy
import pickle

import pytest

from florence2 import client
from florence2.client import errors
from florence2.errors import Florence2Error, InvalidImage, InvalidOption

KNOWN_NAMES = {
    "HTTPClientError": "InferenceError",
    "HTTPCallErrorError": "CallError",
    "HTTPServerConnectionError": "ConnectionFailed",
    "InvalidInputFormatError": "InvalidInput",
    "EncodingError": "InvalidInput",
    "InvalidParameterError": "InvalidParameter",
    "ModelNotSelectedError": "ModelNotSelected",
    "WrongClientModeError": "WrongClientMode",
}


@pytest.mark.parametrize(("known", "ours"), KNOWN_NAMES.items())
def test_known_names_are_the_same_classes(known: str, ours: str) -> None:
    assert getattr(client, known) is getattr(errors, known) is getattr(errors, ours)
    assert issubclass(getattr(errors, ours), errors.InferenceError)


def test_refused_calls_and_lost_connections_are_told_apart() -> None:
    assert not issubclass(errors.ConnectionFailed, errors.HTTPCallErrorError)
    assert not issubclass(errors.CallError, errors.HTTPServerConnectionError)


def test_the_callers_mistakes_are_those_of_the_local_engine() -> None:
    assert issubclass(errors.InvalidInput, (InvalidImage, ValueError))
    assert issubclass(errors.InvalidParameter, InvalidOption)
    assert issubclass(errors.InferenceError, Florence2Error)
    assert errors.InvalidInput("no image").code == InvalidImage.code


def test_errors_survive_copying_and_pickling() -> None:
    error = errors.CallError("no (HTTP 503)", api_message="no", status_code=503, code="overloaded", retry_after=2.0, field="image")
    error.index = 3
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(twin) is errors.CallError
        assert vars(twin) == vars(error)
        assert str(twin) == "image 3: no (HTTP 503)"


def test_code_of_the_class_stands_in_for_the_servers() -> None:
    assert errors.CallError("no").code == "call_failed"
    assert errors.CallError("no", code="unknown_task").code == "unknown_task"
    assert errors.CallError.code == "call_failed"


def test_the_known_constructor() -> None:
    for error in (errors.HTTPCallErrorError(description="d", status_code=404, api_message="m"), errors.HTTPCallErrorError("d", 404, "m")):
        assert (error.description, error.status_code, error.api_message, str(error)) == ("d", 404, "m", "d")


def test_names_that_users_import() -> None:
    for name in (
        *("InvalidURLImageInput", "URLAddressNotAllowedError", "ModelNotInitializedError", "ModelTaskTypeNotSupportedError"),
        *("InvalidModelIdentifier", "APIKeyNotProvided", "FeatureDeprecatedError"),
    ):
        kind = getattr(errors, name)
        assert getattr(client, name) is kind
        assert issubclass(kind, errors.HTTPClientError)
        assert str(kind("said")).startswith("said")
        assert issubclass(pickle.loads(pickle.dumps(kind)), errors.HTTPClientError)
    retry = client.RetryError("said", status_code=503, inner_error=ValueError("x"))
    assert (str(retry), retry.description, retry.status_code, str(retry.inner_error)) == ("said", "said", 503, "x")
    gone = client.FeatureDeprecatedError("old", reason="Because.", removal_release="1.0", replacement="new")
    assert (gone.feature, gone.replacement) == ("old", "new")
    assert str(gone) == "old is no longer there. Because. Gone since 1.0. Use new instead."
    for kind in (client.InferenceSDKDeprecationWarning, client.InferenceSDKGuidanceWarning):
        assert issubclass(kind, Warning)
