"""The protocol over HTTP, for programs on this machine alone.

Listens on the loopback address; requests by another name, or of another site's page, are refused (DNS rebinding). In: a server of the
protocol and a port. Knows nothing of tools.
"""

from __future__ import annotations

import logging
import os
import socket
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn
from mcp.server.transport_security import TransportSecuritySettings

from florence2.errors import InvalidOption
from florence2.mcp.pictures import MAX_BASE64_CHARS

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp.server.lowlevel import Server

HOST = "127.0.0.1"
PATH = "/mcp"
MAX_BODY_BYTES = MAX_BASE64_CHARS + 2**16
END_S = 2


def listen(port: int) -> socket.socket:
    """A socket that listens on this machine's own address.

    Args:
        port: 0 for a free one.

    Raises:
        InvalidOption: the port is taken.
    """
    try:
        return socket.create_server((HOST, port))
    except OSError as error:  # whose own text repeats the address
        raise InvalidOption(f"can't listen on {HOST}:{port}: {os.strerror(error.errno or 0)}; take another --port", field="port") from None


async def serve_http(server: Server[Any], listening: socket.socket, on_ready: Callable[[str], None]) -> None:
    """Serve until a signal ends the process.

    Args:
        server: the server of the protocol.
        listening: what ``listen`` gave.
        on_ready: called with the address once it can be reached.
    """
    port = listening.getsockname()[1]
    names = [f"{name}:{port}" for name in (HOST, "localhost")]
    app = server.streamable_http_app(
        streamable_http_path=PATH,
        max_request_body_size=MAX_BODY_BYTES,
        transport_security=TransportSecuritySettings(allowed_hosts=names, allowed_origins=[f"http://{name}" for name in names]),
        host=HOST,
    )
    config = uvicorn.Config(app, log_config=None, log_level="warning", access_log=False, timeout_graceful_shutdown=END_S)
    on_ready(f"http://{HOST}:{port}{PATH}")
    await _Server(config).serve(sockets=[listening])


class _Server(uvicorn.Server):
    """uvicorn, which ends with exit code 0 where a signal asks it to."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to shut down, which ends streams that are open; at the second signal, end at once."""
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # it would report each of them as incomplete
        self.force_exit = self.should_exit
        self.should_exit = True
