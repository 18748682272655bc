"""The protocol over HTTP, for programs on this machine alone.

Listens on the loopback address; requests by another name, or of another site's page, are refused (DNS rebinding). In: a server of the
protocol and a socket that listens. Knows nothing of tools.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import uvicorn
from mcp.server.transport_security import TransportSecuritySettings

from florence2.listening import HOST, NAMES, LocalServer
from florence2.mcp.pictures import MAX_BASE64_CHARS

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from mcp.server.lowlevel import Server

PATH = "/mcp"
MAX_BODY_BYTES = MAX_BASE64_CHARS + 2**16
END_S = 2


async def serve_http(server: Server[Any], listening: socket.socket, on_ready: Callable[[str], None]) -> None:
    """Serve until a signal ends the process.

    Args:
        server: the server of the protocol.
        listening: what ``florence2.listening.listen`` gave.
        on_ready: called with the address once it can be reached.
    """
    port = listening.getsockname()[1]
    names = [f"{name}:{port}" for name in NAMES]
    app = server.streamable_http_app(
        streamable_http_path=PATH,
        max_request_body_size=MAX_BODY_BYTES,
        transport_security=TransportSecuritySettings(allowed_hosts=names, allowed_origins=[f"http://{name}" for name in names]),
        host=HOST,
    )
    config = uvicorn.Config(app, log_config=None, log_level="warning", access_log=False, timeout_graceful_shutdown=END_S)
    on_ready(f"http://{HOST}:{port}{PATH}")
    await LocalServer(config).serve(sockets=[listening])
