from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import pytest

from florence2.client import ApiKeyTransport, InferenceConfiguration, InvalidParameterError


def test_transport_is_given_as_a_word_or_as_itself() -> None:
    assert InferenceConfiguration().transport is ApiKeyTransport.LEGACY
    assert InferenceConfiguration(api_key_transport="header").api_key_transport is ApiKeyTransport.HEADER
    assert InferenceConfiguration(api_key_transport=ApiKeyTransport.BOTH).transport is ApiKeyTransport.BOTH


@pytest.mark.parametrize(
    "settings",
    [
        {"api_key_transport": "cookie"},
        {"array_channels": "rbg"},
        {"max_concurrent_requests": 0},
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
    assert [field.name for field in fields(InferenceConfiguration) if f"        {field.name}: " not in doc] == []
