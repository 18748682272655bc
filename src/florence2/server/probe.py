"""Asks the server of this machine whether it is well: ``python -m florence2.server.probe [PATH]``, for images without curl.

In: the environment that the server was started with, which says where it listens, and a path: ``/healthz`` (the default) or ``/readiness``.
Out: exit code 0 for a 200, or 1 and a line that says what was wrong. Loads no settings but these, and nothing of the server.
"""

from __future__ import annotations

import http.client
import ssl
import sys
from collections.abc import Callable
from typing import Any

from florence2.errors import InvalidOption
from florence2.server.profiles import EVERY_ADDRESS
from florence2.server.settings import Settings, where

TIMEOUT_S = 5.0
_HERE = {EVERY_ADDRESS: "127.0.0.1", "": "127.0.0.1", "::": "::1"}


def probe(path: str) -> str | None:
    """What is wrong with the server; None if it answers with 200.

    Args:
        path: the route to ask, below which nothing is sent.
    """
    host, port = str(_setting("host")), str(_setting("port"))
    where_it_is = f"{_HERE.get(host, host)}:{port}"
    make: Callable[..., http.client.HTTPConnection] = http.client.HTTPConnection
    given: dict[str, Any] = {"timeout": TIMEOUT_S}
    if _setting("ssl_certfile"):
        # The server is this machine's own, asked by an address that its certificate does not name.
        make, given["context"] = http.client.HTTPSConnection, ssl._create_unverified_context()  # nosec B323
    try:
        connection = make(_HERE.get(host, host), int(port), **given)
        connection.request("GET", path)
        response = connection.getresponse()
        text = response.read(500).decode(errors="replace")
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"{where_it_is} does not answer: {error}"
    return None if response.status == 200 else f"{where_it_is}{path} answers {response.status}: {text}"


def _setting(name: str) -> Any:
    """What environment, file or default say; the other settings may be incomplete without the server's flags."""
    given = where(name, {})
    return Settings.model_fields[name].default if given is None else given.value


def main(arguments: list[str]) -> int:
    """Ask, and say what is wrong; the exit code."""
    path = arguments[0] if arguments else "/healthz"
    if len(arguments) > 1 or not path.startswith("/"):
        print(f"expected a path such as /healthz or /readiness, got {' '.join(arguments)!r}", file=sys.stderr)
        return 2
    try:
        wrong = probe(path)
    except InvalidOption as error:
        wrong = str(error)
    if wrong is not None:
        print(wrong, file=sys.stderr)
    return int(wrong is not None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
