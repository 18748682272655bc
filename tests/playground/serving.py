"""The application around a scripted engine, listening on a port of this machine, in a thread of this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from florence2.server.app import create_app
from florence2.server.inference.answering_engine import AnsweringEngine
from florence2.server.settings import Settings


class ServerThread:
    """A running server.

    Attributes:
        url: where it listens.
        app: the application.
    """

    def __init__(self, engine: AnsweringEngine | None, settings: dict[str, Any], port: int = 0) -> None:
        self.app = create_app(Settings(port=port, **settings), engine=engine)
        config = uvicorn.Config(self.app, host="127.0.0.1", port=port, log_config=None, ws="none", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        self.port: int = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    @property
    def num_slots(self) -> int:
        """Places that requests hold."""
        return self.app.state.server.admission.num_slots

    def stop(self) -> None:
        """End it, with all its connections."""
        self._server.should_exit = True
        self._thread.join(10)
        assert not self._thread.is_alive()


@contextmanager
def serving(engine: AnsweringEngine | None = None, **settings: Any) -> Iterator[ServerThread]:
    """A server that is stopped at the end."""
    server = ServerThread(engine, settings)
    try:
        yield server
    finally:
        server.stop()
