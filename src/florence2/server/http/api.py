"""What one API of the server is: its routes, the form of its errors, and which of its bodies may hold a key.

An API is a folder beside this one that makes an ``Api``; the application is handed a list of them. What belongs to none, such as an
unknown path, has the server's default form. Knows no API by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter
from prometheus_client import CollectorRegistry
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from florence2.errors import Florence2Error
from florence2.server.accounts.key_info import Role
from florence2.server.errors import as_json
from florence2.server.inference.observer import Observer
from florence2.server.settings import Settings

Loaded = Callable[[], Mapping[str, float]]
"""The canonical ids of the loaded models, each with the seconds that loading took."""


@dataclass(frozen=True)
class Api:
    """One API.

    Attributes:
        router: its routes.
        prefixes: the paths that are its own, with all below them.
        error_body: the JSON body of an error, made of the error and the address of the page that explains the codes.
        open_paths: those of its paths that need no key.
        may_hold_key: whether the body of a request may hold the key.
        role_of: the role that a key needs for a path; None: any key will do.
        model_ids: the ids by which it knows models, each with the alias that it means.
        exposed_headers: headers of its answers that pages of other origins may read.
        observe: adds its own metrics of models to the registry, and returns the observer that counts answers for them.
        example: a call for the page at ``/``, made of the server's address and a model.
        first_call: a shorter call for the terminal, made of the same and whether a key is needed.
        is_offered: whether the settings switch it on; one that is off has no paths.
        front_page: the page at ``/`` for browsers; None: it has none.
    """

    router: APIRouter
    prefixes: tuple[str, ...]
    error_body: Callable[[Florence2Error, str], Any] = as_json
    open_paths: frozenset[str] = frozenset()
    may_hold_key: Callable[[Scope], bool] = lambda _: False
    role_of: Callable[[str], Role | None] = lambda _: "infer"
    model_ids: Mapping[str, str] = field(default_factory=dict)
    exposed_headers: tuple[str, ...] = ()
    observe: Callable[[CollectorRegistry, Loaded], Observer] | None = None
    example: Callable[[str, str], str] | None = None
    first_call: Callable[[str, str, bool], str] | None = None
    is_offered: Callable[[Settings], bool] = lambda _: True
    front_page: Callable[[Request], Response] | None = None


def api_at(apis: Iterable[Api], path: str) -> Api | None:
    """The API that a path belongs to; None: it belongs to none."""
    return next((api for api in apis if any(is_below(path, prefix) for prefix in api.prefixes)), None)


def is_below(path: str, prefix: str) -> bool:
    """Whether a path is this one or lies below it."""
    return path == prefix or path.startswith(prefix + "/")
