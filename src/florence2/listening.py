"""HTTP for programs on this machine alone: a socket on the loopback address, and a server that ends in an orderly way.

In: a port, an application. Knows nothing of what is served; needs uvicorn, which the extras ``server`` and ``mcp`` bring.
"""

from __future__ import annotations

import logging
import os
import socket
from types import FrameType

import uvicorn

from florence2.errors import InvalidOption

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")
"""The names by which a browser may ask for it: nobody else can own them."""


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


class LocalServer(uvicorn.Server):
    """uvicorn, which ends with exit code 0 where a signal asks it to."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to shut down, which ends streams that are open; at the second signal, end at once."""
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # it would report each of them as incomplete
        self.force_exit = self.should_exit
        self.should_exit = True
