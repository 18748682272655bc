"""What a client can be set to: one frozen dataclass, checked when it is made.

The names are the known client's where it has one, all of which are taken. Its settings for other kinds of models (thresholds, masks,
visualisation) are kept and have no effect, as they never had one on this model; a warning says so once. Knows nothing of requests.
"""

from __future__ import annotations

import math
import numbers
import os
import warnings
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

from florence2.client.errors import InferenceSDKGuidanceWarning, InvalidParameter


class HTTPClientMode(str, Enum):  # noqa: UP042 - its text is that of inference-sdk
    """How the key travels: ``v0`` for the hosted endpoints (query), ``v1`` for all others (body)."""

    V0 = "v0"
    V1 = "v1"


class ApiKeyTransport(str, Enum):  # noqa: UP042 - its text is that of inference-sdk
    """Which way the key goes: where the mode has it, a ``Bearer`` header, or both."""

    LEGACY = "legacy"
    BOTH = "both"
    HEADER = "header"


class VisualisationResponseFormat(str, Enum):  # noqa: UP042 - its text is that of inference-sdk
    """How pictures with drawings come back from other kinds of models."""

    BASE64 = "base64"
    NUMPY = "numpy"
    PILLOW = "pillow"


@dataclass(frozen=True)
class OtherModels:
    """What the known client sets for models of other kinds: kept, and without effect here."""

    confidence_threshold: Any = None
    keypoint_confidence_threshold: Any = None
    format: Any = None
    mask_decode_mode: Any = None
    tradeoff_factor: Any = None
    max_candidates: Any = None
    max_detections: Any = None
    iou_threshold: Any = None
    stroke_width: Any = None
    class_agnostic_nms: Any = None
    class_filter: Any = None
    fix_batch_size: Any = None
    include_anomaly_map: Any = None
    visualize_predictions: Any = False
    visualize_labels: Any = None
    output_visualisation_format: Any = VisualisationResponseFormat.BASE64
    image_extensions_for_directory_scan: Any = field(default_factory=lambda: ["jpg", "jpeg", "JPG", "JPEG", "png", "PNG"])
    disable_active_learning: Any = False
    active_learning_target_dataset: Any = None
    profiling_directory: Any = "./inference_profiling"
    workflow_run_retries_enabled: Any = True
    response_mask_format: Any = None
    allow_reduced_mask_resolution: Any = False

    def _warn_of_others(self) -> None:
        """Say once in a process of each setting that it has no effect; ``INFERENCE_WARNINGS_DISABLED`` silences it, as it always did."""
        if os.environ.get("INFERENCE_WARNINGS_DISABLED", "").strip().lower() == "true":
            return
        plain = OtherModels.__dataclass_fields__
        for name, known in plain.items():
            default = known.default_factory() if callable(known.default_factory) else known.default
            if name not in _WARNED and getattr(self, name) != default:
                _WARNED.add(name)
                said = f"{name} is a setting for other kinds of models; it is kept, and has no effect on Florence-2"
                warnings.warn(said, InferenceSDKGuidanceWarning, stacklevel=4)


_WARNED: set[str] = set()


@dataclass(frozen=True)
class InferenceConfiguration(OtherModels):
    """The settings of a client; ``configure`` applies them. Those of ``OtherModels`` are taken too.

    Attributes:
        api_key_transport: ``legacy`` (the default), ``header`` or ``both``.
        max_concurrent_requests: how many requests of a list are under way at once; more than 1000 count as 1000.
        max_batch_size: how many images of a list go into one request; 0 counts as 1. More than one is understood by this project's
            server only.
        client_downsizing_disabled: False has images scaled down before they are sent, and the coordinates of the answer scaled back.
        default_max_input_size: the longest side in pixels that is then sent.
        max_image_bytes: an encoded image above it is an error, or is scaled down where downsizing is on. None leaves it to the server.
        jpeg_quality: of pictures that are encoded here (Pillow images, arrays, scaled ones), 1 to 100.
        array_channels: the order of an array's channels, ``bgr`` as OpenCV has them, or ``rgb``.
        send_urls: leave it to the server to fetch the URLs of images; by default the client does.
        timeout_s: the longest silence while sending or waiting for an answer; None waits for ever.
        connect_timeout_s: the longest wait for a connection.
        load_timeout_s: what ``timeout_s`` is for ``load_model``, which may download weights.
        max_retries: how often a call is tried again after 429, 503, 504 or a broken connection.
        retry_wait_s: the first wait in between; doubles each time, with jitter. A ``Retry-After`` of the server comes first.
        max_retry_wait_s: a server that asks for a longer wait gets none: its error is raised at once.
        source: a word for the server's usage records.
        source_info: more of it.
        count_inference: sent as the query ``countinference``.
        service_secret: sent as the query ``service_secret``.
        disable_preproc_auto_orientation: True has the EXIF orientation ignored.
        disable_preproc_contrast: passed on; has an effect on hosted fine-tunes only, as have the next two.
        disable_preproc_grayscale: see there.
        disable_preproc_static_crop: see there.

    Raises:
        InvalidParameter: a value out of range.
    """

    api_key_transport: ApiKeyTransport | str | None = None
    max_concurrent_requests: int = 4
    max_batch_size: int = 1
    client_downsizing_disabled: bool = True
    default_max_input_size: int = 1024
    max_image_bytes: int | None = None
    jpeg_quality: int = 95
    array_channels: Literal["bgr", "rgb"] = "bgr"
    send_urls: bool = False
    timeout_s: float | None = 180.0
    connect_timeout_s: float | None = 10.0
    load_timeout_s: float | None = 900.0
    max_retries: int = 2
    retry_wait_s: float = 0.5
    max_retry_wait_s: float = 60.0
    source: str | None = None
    source_info: str | None = None
    count_inference: bool | None = None
    service_secret: str | None = None
    disable_preproc_auto_orientation: bool | None = None
    disable_preproc_contrast: bool | None = None
    disable_preproc_grayscale: bool | None = None
    disable_preproc_static_crop: bool | None = None

    def __post_init__(self) -> None:
        """Refuse what is out of range, and make the transport's word its enum."""
        words = [transport.value for transport in ApiKeyTransport]
        if self.api_key_transport is not None and self.api_key_transport not in words:
            raise _invalid("api_key_transport", f"one of {words}", self.api_key_transport)
        object.__setattr__(self, "api_key_transport", self.api_key_transport and ApiKeyTransport(self.api_key_transport))
        self._warn_of_others()
        for name, most in (("max_batch_size", None), ("max_concurrent_requests", _MOST_AT_ONCE)):  # as the known client counts
            value = getattr(self, name)
            if isinstance(value, numbers.Integral) and not isinstance(value, bool):
                object.__setattr__(self, name, max(1, int(value) if most is None else min(int(value), most)))
        if self.array_channels not in ("bgr", "rgb"):
            raise _invalid("array_channels", "'bgr' or 'rgb'", self.array_channels)
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            if isinstance(value, bool) or not isinstance(value, numbers.Integral) or not low <= int(value) <= high:
                raise _invalid(name, f"an integer from {low} to {high}", value)
            object.__setattr__(self, name, int(value))
        for name, low in _SECONDS:
            value = getattr(self, name)
            if value is None and name in _OPTIONAL:
                continue
            if isinstance(value, bool) or not isinstance(value, numbers.Real) or not low <= float(value) < math.inf:
                raise _invalid(name, f"a number of seconds from {low:g}", value)
            object.__setattr__(self, name, float(value))

    @classmethod
    def init_default(cls) -> InferenceConfiguration:
        """The settings of a new client."""
        return cls()

    @property
    def transport(self) -> ApiKeyTransport:
        """The transport that holds: ``legacy`` where none was chosen."""
        return ApiKeyTransport(self.api_key_transport or ApiKeyTransport.LEGACY)


_MOST_AT_ONCE = 1000  # threads, at the most, whatever is set
_RANGES = (
    ("max_concurrent_requests", 1, _MOST_AT_ONCE),
    ("max_batch_size", 1, 2**31),
    ("default_max_input_size", 16, 65_500),
    ("max_image_bytes", 1024, 2**40),
    ("jpeg_quality", 1, 100),
    ("max_retries", 0, 100),
)
_SECONDS = (
    ("timeout_s", 0.001),
    ("connect_timeout_s", 0.001),
    ("load_timeout_s", 0.001),
    ("retry_wait_s", 0.0),
    ("max_retry_wait_s", 0.0),
)
_OPTIONAL = frozenset({"max_image_bytes", "timeout_s", "connect_timeout_s", "load_timeout_s"})


def _invalid(name: str, wanted: str, value: object) -> InvalidParameter:
    return InvalidParameter(f"{name} must be {wanted}, got {value!r}", field=name)
