"""Requests and answers as values: what goes over the wire, and what comes of it.

Pure functions, shared by the calls with and without ``await``. Where the key goes depends on the host and the transport, as servers of this
interface expect it. Knows neither sockets nor images.
"""

from __future__ import annotations

import email.utils
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import httpx2
import numpy as np

from florence2.client.configuration import ApiKeyTransport, HTTPClientMode, InferenceConfiguration
from florence2.client.errors import CallError, InferenceError, InvalidParameter, UnexpectedAnswer
from florence2.client.messages import leads_elsewhere, message_of, quoted
from florence2.version import __version__

# Hosted endpoints, by https only: the key goes into the query. Source: measured at the known client, version 1.8.3.
HOSTED = frozenset(
    {f"{name}.roboflow.com" for name in ("detect", "outline", "classify", "infer", "serverless", "asyncinfer")}
    | {"serverless.roboflow.one", "serverless.roboflow.eu", "serverless.roboflow-eu.one", "asyncinfer.roboflow.one"}
)
RETRYABLE = frozenset({429, 503, 504})
OWN_SERVER = "florence2 server"
"""The name by which this project's server goes."""
USER_AGENT = f"florence2-client/{__version__}"
# Answers that say where to send the same request again, and how often in a row.
_SAME_AGAIN = frozenset({307, 308})
_ELSEWHERE = _SAME_AGAIN | {301, 302, 303}
MAX_REDIRECTS = 5
_ITEM_PREFIX = re.compile(r"^image\[(\d+)\]: ")


@dataclass(frozen=True)
class Target:
    """Where requests go, and how.

    Attributes:
        url: the server's address without a slash at its end.
        api_key: the key, or None.
        mode: where the key goes: into the query or into the body.
        configuration: the settings that hold for the call.
    """

    url: str
    api_key: str | None
    mode: HTTPClientMode
    configuration: InferenceConfiguration


@dataclass(frozen=True)
class Request:
    """One HTTP request.

    Attributes:
        name: method and path without the query, for messages.
        timeout_s: the longest silence while sending or waiting for the answer; None waits for ever.
        connect_timeout_s: the longest wait for a connection.
    """

    method: str
    url: str
    name: str
    headers: Mapping[str, str]
    timeout_s: float | None
    connect_timeout_s: float | None
    content: bytes | None = None


@dataclass(frozen=True)
class ResponseHead:
    """What an HTTP answer begins with; header names in lower case."""

    status_code: int
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Response(ResponseHead):
    """One HTTP answer with its body."""

    content: bytes


def server_url(api_url: str) -> str:
    """The address of a server as it is used: without spaces, query and slashes at its end.

    Raises:
        InvalidParameter: not an http address.
    """
    wanted = "api_url must be an address such as http://localhost:9001 or https://serverless.roboflow.com"
    if not isinstance(api_url, str):
        raise InvalidParameter(f"{wanted}, got {type(api_url).__name__}", field="api_url")
    address = api_url.strip()
    try:
        parts = urlsplit(address)
        is_address = (
            address.isprintable()
            and " " not in address
            and parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and parts.port != 0
            and not parts.query
            and not parts.fragment
        )
    except ValueError:  # a port that is no number
        is_address = False
    if not is_address:
        hint = f"; did you mean http://{address}?" if "//" not in api_url else ""
        raise InvalidParameter(f"{wanted}, got {api_url!r}{hint}", field="api_url")
    return address.rstrip("/")


def checked_key(api_key: str | None) -> str | None:
    """A key as it is sent, without spaces around it; None for an empty one.

    Raises:
        InvalidParameter: characters that no header can carry. The message does not hold the key.
    """
    key = api_key.strip() if api_key else ""
    if not (key.isascii() and key.isprintable()):
        raise InvalidParameter("api_key must be printable ASCII on one line; check how it was read", field="api_key")
    return key or None


def mode_of(url: str) -> HTTPClientMode:
    """The mode that a server's address stands for."""
    parts = urlsplit(url)
    return HTTPClientMode.V0 if parts.scheme == "https" and parts.hostname in HOSTED else HTTPClientMode.V1


def infer_request(
    target: Target, model_id: str, images: Sequence[Mapping[str, str]], options: Mapping[str, Any], *, model_id_in_path: bool
) -> Request:
    """The request for one image, or for several in one body."""
    path = f"/infer/lmm/{quote(model_id, safe='/')}" if model_id_in_path else "/infer/lmm"
    settings = target.configuration
    body: dict[str, Any] = _given(source=settings.source, source_info=settings.source_info)
    if target.mode is HTTPClientMode.V1:
        body |= _key_in_body(target)
    body |= {"model_id": model_id, **options}
    body |= _given(
        disable_preproc_auto_orient=settings.disable_preproc_auto_orientation,
        disable_preproc_contrast=settings.disable_preproc_contrast,
        disable_preproc_grayscale=settings.disable_preproc_grayscale,
        disable_preproc_static_crop=settings.disable_preproc_static_crop,
    )
    body["image"] = dict(images[0]) if len(images) == 1 else [dict(image) for image in images]
    query = _key_in_query(target) if target.mode is HTTPClientMode.V0 else {}
    query |= _given(service_secret=settings.service_secret, countinference=settings.count_inference)
    return _request(target, "POST", path, query=query, body=body)


def info_request(target: Target) -> Request:
    """``get_server_info``: never with a key."""
    return replace(_request(target, "GET", "/info"), headers={"User-Agent": USER_AGENT})


def registry_request(target: Target) -> Request:
    """``list_loaded_models``."""
    return _request(target, "GET", "/model/registry", query=_key_in_query(target))


def load_request(target: Target, model_id: str) -> Request:
    """``load_model``."""
    request = _request(target, "POST", "/model/add", body={"model_id": model_id, **_key_in_body(target)})
    return replace(request, timeout_s=target.configuration.load_timeout_s)


def unload_request(target: Target, model_id: str | None) -> Request:
    """``unload_model``, or ``unload_all_models`` for None.

    Servers read no key from these bodies, so that it always goes into the header.
    """
    if model_id is None:
        request = _request(target, "POST", "/model/clear")
    else:
        request = _request(target, "POST", "/model/remove", body={"model_id": model_id})
    return replace(request, headers={**request.headers, **_bearer(target.api_key)})


def redirected(request: Request, response: ResponseHead) -> Request | None:
    """The request as the server wants it sent again; None where it does not, or where the key would go to another host.

    The same host on the same port, or on https instead of http, is the same server.
    """
    followed = _SAME_AGAIN if request.method == "POST" else _ELSEWHERE
    if response.status_code not in followed or not response.headers.get("location"):
        return None
    try:
        there = httpx2.URL(request.url).join(response.headers["location"])
        here = httpx2.URL(request.url)
    except (httpx2.InvalidURL, ValueError):
        return None
    ports = {"http": 80, "https": 443}
    here_port, there_port = (url.port or ports.get(url.scheme) for url in (here, there))
    is_same = (here.scheme, here_port) == (there.scheme, there_port)
    is_secured = (here.scheme, there.scheme) == ("http", "https") and (there_port in (443, here_port))
    if here.host != there.host or there.userinfo or not (is_same or is_secured):
        return None
    if here.query and not there.query:  # the key may stand in there
        there = there.copy_with(query=here.query)
    return replace(request, url=str(there))


def read_answer(response: Response, request: Request, target: Target) -> Any:
    """The JSON of an answer.

    Raises:
        CallError: the server says that the call failed.
        UnexpectedAnswer: the call succeeded, with something that is not JSON.
    """
    if response.status_code >= 400 or leads_elsewhere(response):
        raise error_of(response, request, target)
    try:
        return json.loads(response.content)
    except ValueError:
        raise UnexpectedAnswer(
            f"the answer to {request.name} is not JSON; is this the address of an inference server? It begins with "
            f"{quoted_of(response.content[:4000].decode('utf-8', 'replace'), target)!r}",
            status_code=response.status_code,
            request_id=_request_id(response),
        ) from None


def error_of(response: Response, request: Request, target: Target) -> CallError:
    """The error that an answer stands for."""
    status = response.status_code
    try:
        body = json.loads(response.content)
    except ValueError:
        body = None
    fields = body if isinstance(body, dict) else {}
    said = quoted(message_of(body, response), secrets_of(target))
    code, field = (str(fields[name]) if isinstance(fields.get(name), str) else None for name in ("code", "field"))
    request_id = _request_id(response)
    answered = f"{request.name}: HTTP {status}"
    details = ", ".join(
        [answered, *(f"{name} {value}" for name, value in (("code", code), ("field", field), ("request", request_id)) if value)]
    )
    return CallError(
        f"{said} ({details})",
        field=field,
        api_message=said,
        status_code=status,
        code=code or f"http_{status}",
        help_url=_whole(fields.get("help_url"), target),
        request_id=request_id,
        retry_after=retry_after_of(response),
    )


def error_of_item(body: Mapping[str, Any], target: Target) -> CallError:
    """The error that a list of answers has for one image."""
    # The server's index counts within what was sent together; the caller's own is the error's ``index``.
    said = _ITEM_PREFIX.sub("", quoted(str(body.get("message") or "this image failed"), secrets_of(target)))
    code, field = body.get("code"), body.get("field")
    return CallError(
        f"{said} ({', '.join(f'{name} {value}' for name, value in (('code', code), ('field', field)) if value) or 'no details'})",
        field=field,
        api_message=said,
        status_code=body.get("status"),
        code=code,
        help_url=_whole(body.get("help_url"), target),
    )


def item_of(error: InferenceError) -> tuple[int | None, InferenceError]:
    """The index of the image that failed its request, None where the server names none, and the error without that index."""
    named = _ITEM_PREFIX.match(error.api_message or "")
    if named is None:
        return None, error
    plain = error.with_message(error.message.removeprefix(named[0]))
    plain.api_message = (error.api_message or "").removeprefix(named[0])
    return int(named[1]), plain


def _whole(help_url: object, target: Target) -> str | None:
    """An address that can be opened: servers give their own as a path."""
    if not isinstance(help_url, str):
        return None
    return target.url + help_url if help_url.startswith("/") else help_url


def retry_after_of(response: ResponseHead) -> float | None:
    """The seconds that a server asks to wait; None where it does not, or not legibly."""
    value = response.headers.get("retry-after", "").strip()
    try:
        seconds = float(value) if value[:1].isdigit() else email.utils.parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, TypeError):
        return None
    return max(0.0, seconds)


def quoted_of(text: str, target: Target) -> str:
    """The beginning of what a server said, without secrets, for messages."""
    return quoted(text[:4000], secrets_of(target))[:80]


def form(body: Any) -> str:
    """What a body of JSON is, for messages."""
    return f"a list of {len(body)}" if isinstance(body, list) else type(body).__name__


def _request(
    target: Target, method: str, path: str, *, query: Mapping[str, Any] | None = None, body: Mapping[str, Any] | None = None
) -> Request:
    headers = {"User-Agent": USER_AGENT}
    if target.configuration.transport is not ApiKeyTransport.LEGACY:
        headers |= _bearer(target.api_key)
    content = None
    if body is not None:
        headers["Content-Type"] = "application/json"
        content = _as_json(body)
    url = target.url + path + (f"?{urlencode(query)}" if query else "")
    settings = target.configuration
    return Request(method, url, f"{method} {path}", headers, settings.timeout_s, settings.connect_timeout_s, content)


def _as_json(body: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(body, allow_nan=False, default=_plain).encode("ascii")
    except (TypeError, ValueError) as error:
        raise InvalidParameter(f"the options of this call can't be written as JSON: {error}") from error


def _plain(value: Any) -> Any:
    """Numbers and arrays of numpy as JSON has them."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no JSON value")


def _key_in_body(target: Target) -> dict[str, str | None]:
    """The key as a field of the body; the known client writes the field even where there is no key."""
    return {} if target.configuration.transport is ApiKeyTransport.HEADER else {"api_key": target.api_key}


def _key_in_query(target: Target) -> dict[str, Any]:
    return {} if target.configuration.transport is ApiKeyTransport.HEADER else _given(api_key=target.api_key)


def _bearer(api_key: str | None) -> dict[str, str]:
    return {} if api_key is None else {"Authorization": f"Bearer {api_key}"}


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def secrets_of(target: Target) -> tuple[str | None, ...]:
    """What no message may hold."""
    return target.api_key, target.configuration.service_secret


def _request_id(response: Response) -> str | None:
    return response.headers.get("x-request-id") or response.headers.get("execution_id")
