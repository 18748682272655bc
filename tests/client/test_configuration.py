from __future__ import annotations

import math
import warnings
from typing import Any

import pytest

from florence2.client import (
    ApiKeyTransport,
    InferenceConfiguration,
    InferenceSDKGuidanceWarning,
    InvalidParameterError,
    VisualisationResponseFormat,
)
from florence2.client import configuration as configuring
from florence2.client.configuration import OtherModels


def test_transport_is_given_as_a_word_or_as_itself() -> None:
    assert InferenceConfiguration().transport is ApiKeyTransport.LEGACY
    assert InferenceConfiguration(api_key_transport="header").api_key_transport is ApiKeyTransport.HEADER
    assert InferenceConfiguration(api_key_transport=ApiKeyTransport.BOTH).transport is ApiKeyTransport.BOTH


@pytest.mark.parametrize(
    "settings",
    [
        {"api_key_transport": "cookie"},
        {"array_channels": "rbg"},
        {"max_concurrent_requests": None},
        {"max_batch_size": 1.0},
        {"max_batch_size": True},
        {"jpeg_quality": 101},
        {"max_image_bytes": 10},
        {"default_max_input_size": 0},
        {"max_retries": -1},
        {"timeout_s": 0},
        {"timeout_s": math.nan},
        {"retry_wait_s": None},
        {"max_retry_wait_s": math.inf},
        {"connect_timeout_s": "5"},
    ],
)
def test_values_out_of_range_are_refused_by_name(settings: dict[str, Any]) -> None:
    ((name, value),) = settings.items()
    with pytest.raises(InvalidParameterError, match=f"{name} must be") as caught:
        InferenceConfiguration(**settings)
    assert caught.value.field == name
    assert repr(value) in str(caught.value)


def test_what_may_be_none() -> None:
    InferenceConfiguration(timeout_s=None, connect_timeout_s=None, load_timeout_s=None, max_image_bytes=None)


def test_every_setting_is_documented() -> None:
    doc = InferenceConfiguration.__doc__ or ""
    assert [name for name in vars(InferenceConfiguration)["__annotations__"] if f"        {name}: " not in doc] == []


@pytest.mark.parametrize("value", [0, -3, 1])
def test_no_batch_and_no_parallel_request_count_as_one(value: int) -> None:
    settings = InferenceConfiguration(max_batch_size=value, max_concurrent_requests=value)
    assert (settings.max_batch_size, settings.max_concurrent_requests) == (1, 1)


def test_settings_of_other_models_are_kept_and_warned_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuring, "_WARNED", set())
    given = {"confidence_threshold": 0.4, "class_filter": ["a"], "visualize_predictions": True, "profiling_directory": "/p"}
    with pytest.warns(InferenceSDKGuidanceWarning) as told:
        settings = InferenceConfiguration(**given)
    assert {str(warning.message).split()[0] for warning in told} == set(given)
    assert {name: getattr(settings, name) for name in given} == given
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        InferenceConfiguration(**given)
        InferenceConfiguration(**{name: getattr(InferenceConfiguration(), name) for name in OtherModels.__dataclass_fields__})
    assert InferenceConfiguration.init_default() == InferenceConfiguration()
    assert InferenceConfiguration().output_visualisation_format is VisualisationResponseFormat.BASE64
