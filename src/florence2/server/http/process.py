"""The server as a process: listening, signals, and an orderly end.

On SIGTERM or SIGINT, or on SIGHUP where that is not ignored, the server first says that it is not ready, stays reachable for
``drain_delay_s``, then takes no more connections, waits for the requests in flight, and exits with 0, in any case within
``drain_delay_s + drain_timeout_s``, whatever hangs. A second signal ends it at once. Knows nothing of requests.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any, cast

import uvicorn
from fastapi import FastAPI

from florence2.console import is_interactive, report, reporting
from florence2.errors import Florence2Error
from florence2.process_limits import raise_file_limit
from florence2.server.http.connection import BoundedProtocol
from florence2.server.http.descriptors import ConnectionBound
from florence2.server.http.logs import flush
from florence2.server.http.shutdown import Deadline
from florence2.server.http.state import ServerState
from florence2.server.inference.admission import Admission
from florence2.server.memory import keep_picture_blocks, map_large_blocks
from florence2.server.profiles import EVERY_ADDRESS
from florence2.server.settings import Settings

END_S = 3  # of the time to end: what is left for closing engines, once requests have been waited for
UNREAD_S = 3.0  # a client that reads nothing for so long, while the server ends, is left
AT_ONCE_S = 1.0
# A thread that needs the interpreter's lock waits so long before it asks for it; the event loop needs it for each of a thousand sockets.
SWITCH_INTERVAL_S = 0.001
KEEP_ALIVE_S = 75  # longer than load balancers keep idle connections, so that none is closed under a request


class ServerFailed(Florence2Error):
    """The server could not start: an address in use, a model that can't be loaded."""

    code = "server_failed"


class DrainingServer(uvicorn.Server):
    """uvicorn with a pause between "not ready" and closed, and an end to all waiting."""

    def __init__(self, config: uvicorn.Config, admission: Admission, delay_s: float, max_connections: int) -> None:
        super().__init__(config)
        self._bound = ConnectionBound(max_connections, raise_file_limit())
        self.deadline = Deadline()
        self._admission = admission
        self._delay_s = delay_s
        self._longest_s = (config.timeout_graceful_shutdown or 0) + END_S
        self._closes_at: float | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Those that uvicorn takes, and the one that a closing terminal sends; ``nohup`` has that ignored, and so it stays."""
        with super().capture_signals():
            hang_up = getattr(signal, "SIGHUP", None)
            in_main_thread = threading.current_thread() is threading.main_thread()
            if hang_up is None or not in_main_thread or signal.getsignal(hang_up) is not signal.SIG_DFL:
                yield
                return
            signal.signal(hang_up, self.handle_exit)
            try:
                yield
            finally:
                signal.signal(hang_up, signal.SIG_DFL)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to shut down; at the second signal, end at once."""
        if self._closes_at is not None:
            self.force_exit = self.should_exit = True
            self.deadline.within(AT_ONCE_S)
            return
        self._admission.is_draining = True
        self._closes_at = time.monotonic() + self._delay_s
        self.deadline.within(self._delay_s + self._longest_s)

    @property
    def port(self) -> int | None:
        """The port that it listens on; None: it does not listen yet."""
        sockets = [one for server in getattr(self, "servers", ()) for one in server.sockets]
        return sockets[0].getsockname()[1] if sockets else None

    async def on_tick(self, counter: int) -> bool:
        """Shut down if the pause is over, and enforce the limit on connections."""
        if self._closes_at is not None and time.monotonic() >= self._closes_at:
            self.should_exit = True
        self._bound.enforce(self.server_state.connections)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer the requests in flight and close; a thread that hangs is not waited for."""
        self.deadline.within(self._longest_s)
        leaving = asyncio.create_task(self._leave_unread())
        await super().shutdown(sockets)
        leaving.cancel()
        self.deadline.within(END_S)

    async def _leave_unread(self) -> None:
        """Close connections of clients that do not read their response."""
        unread: dict[Any, int] = {}
        while True:
            await asyncio.sleep(UNREAD_S)
            for connection in list(self.server_state.connections):
                left = connection.transport.get_write_buffer_size()
                if left and left == unread.get(connection):
                    connection.transport.abort()
                unread[connection] = left


def serve(settings: Settings, create_app: Callable[..., FastAPI]) -> None:
    """Serve until a signal ends it.

    Args:
        settings: the server's.
        create_app: makes the application of the settings, ``on_ready`` and ``on_failure``.

    Raises:
        ServerFailed: it could not start.
        InvalidOption: the keys can't be read.
    """
    servers: list[DrainingServer] = []
    failures: list[str] = []

    def fail() -> None:
        failures.append("a model could not be loaded; the log says why")
        servers[0].deadline.exit_code = 1
        servers[0].should_exit = True

    def ready() -> None:
        _settle_memory()
        if is_interactive(sys.stderr) and not reporting.is_quiet and not settings.log_json:
            flush()
            report(_first_call(app.state.server, servers[0].port))

    sys.setswitchinterval(SWITCH_INTERVAL_S)
    if settings.threads is not None:  # PyTorch reads it when it is loaded, here or in the engine's own process
        os.environ["OMP_NUM_THREADS"] = str(settings.threads)
    keep_picture_blocks(settings.image_threads)
    if settings.engine_process:  # otherwise this process computes, which needs its blocks again and again
        map_large_blocks()
    app = create_app(settings, on_ready=ready, on_failure=fail)
    server = DrainingServer(_config(app, settings), app.state.server.admission, settings.drain_delay_s, settings.max_connections)
    servers.append(server)
    try:
        server.run()
    except SystemExit:  # what uvicorn raises when the address is taken; it has logged why
        failures.append(f"can't listen on {settings.host}:{settings.port}; the log says why. Take another --port")
    except KeyboardInterrupt:
        return
    flush()
    if failures or not server.started:
        raise ServerFailed(failures[0] if failures else "the server did not start; the log says why")


def _first_call(server: ServerState, port: int | None) -> str:
    """A line to copy: the call that shows that the server answers."""
    settings = server.settings
    host = "localhost" if settings.host in (EVERY_ADDRESS, "::", "127.0.0.1") else settings.host
    address = f"{'https' if settings.ssl_certfile else 'http'}://{host}:{port or settings.port}{settings.root_path}"
    calls = (api.first_call(address, server.models.known[0], not server.keys.is_open) for api in server.apis if api.first_call)
    return " or try: ".join([f"open {address}", *calls])


def _settle_memory() -> None:
    """Exclude all objects that exist now from garbage collection, which stops all requests while it runs."""
    gc.collect()
    gc.freeze()


def _config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """The settings of uvicorn."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        ssl_certfile=settings.ssl_certfile,
        ssl_keyfile=None if settings.ssl_keyfile is None else str(settings.ssl_keyfile),
        log_config=None,  # ours is set up already
        access_log=False,  # it would print keys in queries
        server_header=False,
        # Not "auto": httptools, where it happens to be installed, takes heads of any size.
        http=cast(Any, partial(BoundedProtocol, settings=settings, metrics=app.state.server.metrics)),
        ws="none",
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(settings.drain_timeout_s) - END_S),
    )
