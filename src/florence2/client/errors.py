"""Every error that the client raises.

InferenceError              also HTTPClientError
├── CallError               also HTTPCallErrorError: the server answered, and with an error
├── ConnectionFailed        also HTTPServerConnectionError: no answer came, or it broke off
├── CallTimeout             the server took longer than the configuration allows
├── UnexpectedAnswer        the answer is not what this call gives
├── InvalidInput            also InvalidInputFormatError, EncodingError: what came is no image (also an InvalidImage)
├── InvalidParameter        also InvalidParameterError: an option or a setting out of range (also an InvalidOption)
├── ModelNotSelected        also ModelNotSelectedError: no model named and none selected
└── WrongClientMode         also WrongClientModeError: a call that hosted endpoints do not have

The second names are those of the known client, so that ``except`` clauses keep working when only the import is changed. Calls
with and without ``await`` raise the same. No message holds an API key or an image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from florence2.errors import Florence2Error, InvalidImage, InvalidOption

if TYPE_CHECKING:
    from typing import Unpack


class _Details(TypedDict, total=False):
    """What an error may have besides its message."""

    field: str | None
    code: str | None
    help_url: str | None
    request_id: str | None
    retry_after: float | None


class InferenceError(Florence2Error):
    """The root of what the client raises.

    Attributes:
        api_message: what the server said, as it came; None where no server spoke.
        status_code: the HTTP status of the answer, or None.
        code: a stable word for programs: the server's own where it sends one.
        field: the request field at fault, where the server names one.
        help_url: where the server says more is written.
        request_id: what to name when asking about this call.
        retry_after: seconds the server asked to wait, or None.
        index: which image of a list failed, from 0; None for a single image.
    """

    code = "inference_failed"
    status = 502

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        api_message: str | None = None,
        status_code: int | None = None,
        code: str | None = None,
        help_url: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, field=field)
        self.api_message = api_message
        self.status_code = status_code
        if code is not None:
            self.code = code
        self.help_url = help_url
        self.request_id = request_id
        self.retry_after = retry_after
        self.index: int | None = None

    @property
    def description(self) -> str:
        """The whole message; the known client's name for it."""
        return str(self)

    def __str__(self) -> str:
        """The message, with the image's index in its list in front."""
        said = super().__str__()
        return said if self.index is None else f"image {self.index}: {said}"


class CallError(InferenceError):
    """The server answered with an error; ``api_message`` is what it said.

    Args:
        description: the whole message.
        status_code: the HTTP status of the answer.
        api_message: what the server said.
        more: see ``InferenceError``.
    """

    code = "call_failed"

    def __init__(self, description: str, status_code: int | None = None, api_message: str | None = None, **more: Unpack[_Details]) -> None:
        super().__init__(description, status_code=status_code, api_message=api_message, **more)


class ConnectionFailed(InferenceError):
    """No answer came: refused, not resolved, or broken off."""

    code = "connection_failed"


class CallTimeout(InferenceError):
    """The server took longer than ``timeout_s``."""

    code = "call_timeout"
    status = 504


class UnexpectedAnswer(InferenceError):
    """The server's answer is not JSON, or not what this call gives."""

    code = "unexpected_answer"


class InvalidInput(InferenceError, InvalidImage):
    """What was given as an image is none, or could not be read or fetched."""

    code = "invalid_image"
    status = 400


class InvalidURLImageInput(InvalidInput):
    """An image's URL is none, or the switches of the environment do not allow it."""


class URLAddressNotAllowedError(InvalidInput):
    """An image's URL leads to a host that is not on the public internet, and ``ALLOW_URL_TO_NON_GLOBAL_ADDRESSES`` is false."""


class InvalidParameter(InferenceError, InvalidOption):
    """An option of a call or a setting of the client is out of range."""

    code = "invalid_option"
    status = 400


class ModelNotSelected(InferenceError):
    """Neither the call nor ``select_model`` named a model."""

    code = "model_not_selected"
    status = 400


class WrongClientMode(InferenceError):
    """The call exists on servers of one's own only, not on the hosted endpoints."""

    code = "wrong_client_mode"
    status = 400


class RetryError(Exception):
    """What the known client raises below its other errors. Exists for ``except`` clauses: this client never raises it."""

    def __init__(self, description: str, status_code: int | None = None, inner_error: Exception | None = None) -> None:
        super().__init__(description)
        self.description = description
        self.status_code = status_code
        self.inner_error = inner_error


class _Foreign(InferenceError):
    """An error of the known client's own. All its kinds but the one about models that are not loaded exist for ``except`` clauses alone."""

    def __init__(self, message: str = "", **details: Unpack[_Details]) -> None:
        super().__init__(message, **details)


class InvalidModelIdentifier(_Foreign):
    """A model's id that is none, in calls of other kinds of models."""


class ModelNotInitializedError(_Foreign):
    """A model that ``get_model_description`` asks for is not loaded."""

    code = "model_not_initialized"
    status = 404


class ModelTaskTypeNotSupportedError(_Foreign):
    """A kind of model that ``infer`` does not know, which is not offered."""


class APIKeyNotProvided(_Foreign):
    """A missing key in workflows and streams, which are not offered."""


class FeatureDeprecatedError(_Foreign):
    """A call that the known client has dropped.

    Attributes:
        feature: its name.
        reason: why it went.
        removal_release: in which version.
        replacement: what to use instead.
    """

    def __init__(
        self, feature: str, *, reason: str | None = None, removal_release: str | None = None, replacement: str | None = None
    ) -> None:
        self.feature, self.reason, self.removal_release, self.replacement = feature, reason, removal_release, replacement
        more = (reason, removal_release and f"Gone since {removal_release}.", replacement and f"Use {replacement} instead.")
        super().__init__(" ".join([f"{feature} is no longer there.", *filter(None, more)]))


class InferenceSDKDeprecationWarning(Warning):
    """Something of the known client that will go; this client has none yet."""


class InferenceSDKGuidanceWarning(Warning):
    """A setting that has no effect, or a better way to do something."""


HTTPClientError = InferenceError
HTTPCallErrorError = CallError
HTTPServerConnectionError = ConnectionFailed
InvalidInputFormatError = InvalidInput
EncodingError = InvalidInput
InvalidParameterError = InvalidParameter
ModelNotSelectedError = ModelNotSelected
WrongClientModeError = WrongClientMode
