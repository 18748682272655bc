"""Authentication: the keys that are accepted, and the middleware in front of the routes that checks them.

A key is read from the query, else from ``Authorization: Bearer``, else from the body where the API has one; the first that holds a key
decides. What it may do is checked as soon as it is known (``identify``). Keys are compared in constant time and never logged. Knows
nothing of what a request is about.
"""

from __future__ import annotations

import hmac
import logging
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from florence2.errors import InvalidOption, ModelNotFound
from florence2.server.accounts.given_keys import GivenKeys, digest
from florence2.server.accounts.key_info import ANYBODY, ROLES, SELF_CHECK, KeyInfo, Role
from florence2.server.errors import UNAUTHORIZED_MESSAGE, Forbidden, Unauthorized
from florence2.server.http.api import Api, api_at
from florence2.server.http.headers import header
from florence2.server.settings import Settings

if TYPE_CHECKING:
    from florence2.server.accounts.accounts import Accounts

logger = logging.getLogger(__name__)

METRICS_PATH = "/metrics"
OPEN_PATHS = frozenset(
    {"/", "/healthz", "/readiness", "/docs", "/docs/errors", "/docs/assets/swagger-ui-bundle.js", "/docs/assets/swagger-ui.css"}
)


class Keys:
    """The keys that are accepted: those of the settings, and those of a database; without either, every request is.

    Args:
        settings: the server's.
        accounts: the keys of a database, and how many requests they may send; None: there is none.

    Raises:
        InvalidOption: as of ``GivenKeys``.
    """

    def __init__(self, settings: Settings, accounts: Accounts | None = None) -> None:
        self._accounts = accounts
        self._given = GivenKeys(
            *([key.get_secret_value() for key in settings.api_keys], settings.api_keys_file),
            *([key.get_secret_value() for key in settings.management_keys], settings.management_keys_file),
        )
        self._own: bytes | None = None

    @property
    def is_open(self) -> bool:
        """Whether requests need no key. Where there is a database they do, even if it holds no key yet."""
        return not self._given and self._accounts is None

    def issue(self) -> str | None:
        """A key of this process, for ``serve --check``, which calls its own routes; None: none is needed."""
        if self.is_open:
            return None
        key = secrets.token_urlsafe(32)
        self._own = digest(key)
        return key

    async def find(self, key: object) -> KeyInfo | None:
        """Whose key it is; None: nobody's.

        Raises:
            KeysUnavailable: the database does not answer, and it is not known yet.
        """
        if self.is_open:
            return ANYBODY
        sought = key if isinstance(key, str) else ""
        if self._own is not None and hmac.compare_digest(self._own, digest(sought)):
            return KeyInfo(SELF_CHECK, frozenset(ROLES))
        given = self._given.find(sought)
        return given if given is not None or self._accounts is None else await self._accounts.keys.find(sought)

    async def count(self, key: KeyInfo) -> None:
        """Count a request against the rate of its key.

        Raises:
            RateLimited: it has sent as many as it may.
        """
        if self._accounts is not None:
            await self._accounts.rates.check(key)

    async def check(self, key: object) -> KeyInfo:
        """Whose key it is.

        Raises:
            Unauthorized: nobody's.
            KeysUnavailable: as of ``find``.
        """
        found = await self.find(key)
        if found is None:
            raise Unauthorized(UNAUTHORIZED_MESSAGE, field="api_key")
        return found


class Gate:
    """Middleware that refuses requests with no key, a wrong one, or one that may not do this, before anything of the body is read.

    A request whose API says that its body may hold a key is let through without one; ``scope["state"]`` has None for ``key`` (its
    ``KeyInfo``) and ``key_name`` then, until the body shows it, or the route has called ``check_body``.
    """

    def __init__(self, app: ASGIApp, keys: Keys, apis: Sequence[Api], settings: Settings) -> None:
        self._app = app
        self._keys = keys
        self._apis = apis
        self._open_paths = OPEN_PATHS.union(*(api.open_paths for api in apis), {METRICS_PATH} if settings.open_metrics else ())
        self._in_header = settings.allow_key_in_header

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or raise ``Unauthorized`` or ``Forbidden``."""
        if scope["type"] == "http" and scope["path"] not in self._open_paths:
            key, api = self._key_of(scope), api_at(self._apis, scope["path"])
            state = scope["state"]
            state["key"] = state["key_name"] = None
            state["role"] = _own_role(scope["path"]) if api is None else api.role_of(scope["path"])
            if key is not None or self._keys.is_open or api is None or not api.may_hold_key(scope):
                await identify(scope, self._keys, key)
        await self._app(scope, receive, send)

    def _key_of(self, scope: Scope) -> str | None:
        """The key in query or header. An empty one in the query counts as one; ``Bearer`` with nothing behind it does not."""
        for name, value in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True):
            if name == "api_key":
                return value
        scheme, _, credentials = header(scope, b"authorization").partition(" ")
        return (credentials.strip() or None) if self._in_header and scheme.lower() == "bearer" else None


def _own_role(path: str) -> Role | None:
    """What the paths that belong to no API need."""
    return "metrics" if path == METRICS_PATH else None


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


async def identify(scope: Scope, keys: Keys, key: object, *, is_certain: bool = True) -> KeyInfo | None:
    """Whose key a request has, from now on in its state.

    Args:
        scope: the request's.
        keys: the keys that are accepted.
        key: what it has for a key.
        is_certain: that is its key; otherwise it only may be, and a wrong one is passed over.

    Returns:
        None: nobody's, where that is not certain.

    Raises:
        Unauthorized: nobody's.
        Forbidden: it has not the role that the path needs.
        RateLimited: it has sent as many requests as it may.
        KeysUnavailable: the database of keys does not answer.
    """
    state = scope["state"]
    found = await (keys.check(key) if is_certain else keys.find(key))
    if found is not None:
        state["key"], state["key_name"] = found, found.name
        if state["role"] is not None:
            _check_role(found, state["role"])
        if state["role"] == "infer" and scope["method"] == "POST":
            await keys.count(found)
    return found


async def check_body(scope: Scope, keys: Keys, key: object) -> KeyInfo:
    """The request's key, which may stand in the body if it stood nowhere else.

    Raises:
        Unauthorized: no key anywhere, or one that is not known.
        Forbidden: it has not the role that the path needs.
    """
    known: KeyInfo | None = scope["state"].get("key")
    if known is None:
        known = await identify(scope, keys, key)
    assert known is not None
    return known


def require_role(request: Request, role: Role) -> None:
    """Refuse a request whose key has not this role.

    Raises:
        Forbidden: it has not.
    """
    _check_role(request.scope["state"]["key"], role)


def may_use(key: KeyInfo, model_id: str, canonical: Callable[[str], str]) -> bool:
    """Whether a key may ask a model.

    Args:
        key: the key.
        model_id: the canonical id of the model.
        canonical: the canonical id of any name; raises ``ModelNotFound``.
    """
    if key.models is None:
        return True
    for name in key.models:
        with suppress(ModelNotFound):
            if canonical(name) == model_id:
                return True
    return False


def require_model(request: Request, model_id: str, canonical: Callable[[str], str]) -> None:
    """Refuse a request whose key may not ask this model; arguments as of ``may_use``.

    Raises:
        Forbidden: it may not.
    """
    key: KeyInfo = request.scope["state"]["key"]
    if not may_use(key, model_id, canonical):
        allowed = ", ".join(sorted(key.models or ()))
        raise Forbidden(f"this key may not use the model {model_id}, only: {allowed or 'none'}", field="model_id")


def _check_role(key: KeyInfo, role: Role) -> None:
    if role not in key.roles:
        raise Forbidden(
            f"this needs a key with the role {role}, and this one has: {', '.join(sorted(key.roles)) or 'none'}; whoever runs the server "
            f"makes one with florence2 keys create NAME --role {role}, or names it in management_keys"
        )


def content_kind(scope: Scope) -> str:
    """The content type without its parameters."""
    return header(scope, b"content-type").partition(";")[0].strip().lower()
