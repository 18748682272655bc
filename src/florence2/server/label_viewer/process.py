"""The page as a process: listening on this machine alone, opening a browser, and a quiet end.

In: a run and a port. Knows nothing of what is shown.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import webbrowser
from collections.abc import Callable

import uvicorn

from florence2.errors import InvalidOption
from florence2.listening import HOST, LocalServer, listen
from florence2.server.label_viewer.app import create_app
from florence2.server.label_viewer.run import Run

DEFAULT_PORT = 9003
END_S = 1


def listen_at(port: int | None) -> socket.socket:
    """A socket on this machine's own address.

    Args:
        port: 0 for a free one; None for the default one, or a free one where that is taken.

    Raises:
        InvalidOption: the port is taken.
    """
    if port is not None:
        return listen(port)
    try:
        return listen(DEFAULT_PORT)
    except InvalidOption:
        return listen(0)


def serve(run: Run, listening: socket.socket, on_ready: Callable[[str], None]) -> None:
    """Serve until a signal ends it.

    Args:
        run: what is shown.
        listening: what ``listen_at`` gave.
        on_ready: called with the address once it can be reached.
    """
    config = uvicorn.Config(
        create_app(run), log_config=None, log_level="critical", access_log=False, ws="none", lifespan="off", timeout_graceful_shutdown=END_S
    )
    on_ready(f"http://{HOST}:{listening.getsockname()[1]}/")
    asyncio.run(LocalServer(config).serve(sockets=[listening]))


def open_browser(address: str) -> None:
    """Open the page in the user's browser, without waiting for it; where there is none, nothing happens."""
    threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
