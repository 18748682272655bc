"""Headers of a request as they stand in its scope, where every request asks for a dozen of them. Knows nothing of what they mean."""

from __future__ import annotations

from starlette.types import Scope


def header(scope: Scope, name: bytes, default: str = "") -> str:
    """The first value of a header.

    Starlette's ``Headers`` gives the same in several times the time, most of it for headers that are not there.

    Args:
        scope: the request's.
        name: in lower case, as names in a scope are.
        default: what a request has that lacks it.
    """
    for present, value in scope["headers"]:
        if present == name:
            return value.decode("latin-1")
    return default
