"""Authentication: the keys that are accepted, and the middleware in front of the routes that checks them.

A key is read from the query, else from ``Authorization: Bearer``, else from the body where the API has one; the first that holds a key
decides. Keys are compared in constant time and never logged. Knows nothing of what a request is about.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from florence2.errors import InvalidOption
from florence2.server.errors import UNAUTHORIZED_MESSAGE, Unauthorized
from florence2.server.http.api import Api, api_at
from florence2.server.settings import Settings

logger = logging.getLogger(__name__)

OPEN_PATHS = frozenset(
    {"/", "/healthz", "/readiness", "/docs", "/docs/errors", "/docs/assets/swagger-ui-bundle.js", "/docs/assets/swagger-ui.css"}
)
MIN_KEY_CHARS = 8


class Keys:
    """The keys that are accepted; without any, every request is.

    Raises:
        InvalidOption: the file of keys can't be read or holds none, or a key is too short or could not be sent.
    """

    def __init__(self, settings: Settings) -> None:
        values = [key.get_secret_value() for key in settings.api_keys]
        _check_keys(values, "api_keys")
        if settings.api_keys_file is not None:
            values += _read_keys(settings.api_keys_file)
        # For ``serve --check``, which calls its own routes.
        self.first = values[0] if values else None
        # Digests have one length, so that comparing them reveals nothing about the length of a key.
        self._digests = [_digest(value) for value in values]

    @property
    def is_open(self) -> bool:
        """Whether requests need no key."""
        return not self._digests

    def name_of(self, key: object) -> str | None:
        """The name by which logs and limits know the key, made of its number in the list; "" if none is needed; None: no such key."""
        if self.is_open:
            return ""
        digest, found = _digest(key if isinstance(key, str) else ""), None
        for number, known in enumerate(self._digests, 1):
            if hmac.compare_digest(digest, known):
                found = f"key-{number}"
        return found

    def check(self, key: object) -> str:
        """The key's name, as by ``name_of``.

        Raises:
            Unauthorized: no such key.
        """
        name = self.name_of(key)
        if name is None:
            raise Unauthorized(UNAUTHORIZED_MESSAGE, field="api_key")
        return name


class Gate:
    """Middleware that refuses requests with no key or a wrong one, before anything of the body is read.

    A request whose API says that its body may hold a key is let through without one; ``scope["state"]["key_name"]`` is then None until
    the body shows it, or the route has called ``check_body``.
    """

    def __init__(self, app: ASGIApp, keys: Keys, apis: Sequence[Api], settings: Settings) -> None:
        self._app = app
        self._keys = keys
        self._apis = apis
        self._open_paths = OPEN_PATHS.union(*(api.open_paths for api in apis))
        self._in_header = settings.allow_key_in_header

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or raise ``Unauthorized``."""
        if scope["type"] == "http" and scope["path"] not in self._open_paths:
            key = self._key_of(scope)
            waits_for_body = key is None and not self._keys.is_open and self._may_hold_key(scope)
            scope["state"]["key_name"] = None if waits_for_body else self._keys.check(key)
        await self._app(scope, receive, send)

    def _may_hold_key(self, scope: Scope) -> bool:
        api = api_at(self._apis, scope["path"])
        return api is not None and api.may_hold_key(scope)

    def _key_of(self, scope: Scope) -> str | None:
        """The key in query or header. An empty one in the query counts as one; ``Bearer`` with nothing behind it does not."""
        for name, value in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True):
            if name == "api_key":
                return value
        scheme, _, credentials = Headers(scope=scope).get("authorization", "").partition(" ")
        return (credentials.strip() or None) if self._in_header and scheme.lower() == "bearer" else None


def check_anonymous(settings: Settings) -> None:
    """Refuse to listen without keys where other machines can connect, unless that is allowed.

    Raises:
        InvalidOption: it is not allowed.
    """
    if not settings.allow_anonymous:
        raise InvalidOption(
            f"without keys everybody who reaches {settings.host or 'this machine'} could use the server: name keys with --api-keys-file or "
            "FLORENCE2_API_KEYS, or listen on 127.0.0.1; if it shall be open to everybody, add --allow-anonymous "
            "(FLORENCE2_ALLOW_ANONYMOUS=true)",
            field="allow_anonymous",
        )
    logger.warning("there are no keys, and %s can be reached by others: everybody may use this server", settings.host)


def check_body(scope: Scope, keys: Keys, key: object) -> str:
    """The name of the request's key, which may stand in the body if it stood nowhere else.

    Raises:
        Unauthorized: no key anywhere, or one that is not known.
    """
    if scope["state"].get("key_name") is None:
        scope["state"]["key_name"] = keys.check(key)
    return scope["state"]["key_name"]


def content_kind(scope: Scope) -> str:
    """The content type without its parameters."""
    return Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower()


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _read_keys(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidOption(
            f"the file of keys {str(path)!r} can't be read: {getattr(error, 'strerror', None) or error}", field="api_keys_file"
        ) from None
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise InvalidOption(f"the file of keys {str(path)!r} holds none; write one key a line", field="api_keys_file")
    _check_keys(keys, "api_keys_file")
    return keys


def _check_keys(keys: Sequence[str], setting: str) -> None:
    """Refuse keys that could be guessed, or that no header can carry. The message names a key by its number: it may be logged."""
    for number, key in enumerate(keys, 1):
        if len(key) < MIN_KEY_CHARS:
            raise InvalidOption(
                f"key {number} of {setting} has {len(key)} characters, and fewer than {MIN_KEY_CHARS} can be guessed; "
                "make one with: openssl rand -hex 20",
                field=setting,
            )
        if not (key.isascii() and key.isprintable() and " " not in key):
            raise InvalidOption(f"key {number} of {setting} must be printable ASCII without spaces; no header can carry it", field=setting)
