"""A server that speaks like the incumbent, written down by hand: it logs what came and answers what it is told to."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

REGISTRY = {
    "models": [{"model_id": "florence-pretrains/3", "task_type": "lmm", "batch_size": None, "input_height": None, "input_width": None}],
    "total_vram_bytes": None,
}
INFO = {"name": "Roboflow Inference Server", "version": "1.8.3", "uuid": "abc123"}


@dataclass(frozen=True)
class Received:
    """One request as it came over the wire."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """One answer; ``body`` is JSON unless it is bytes. A status of 0 breaks the connection off.

    Attributes:
        pieces: the body in chunks instead, with pauses in seconds between them.
        breaks_off: whether the connection ends before the last chunk is announced.
    """

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    pieces: Iterable[bytes | float] | None = None
    breaks_off: bool = False


@dataclass
class Stub:
    """The server while it runs.

    Attributes:
        url: its address.
        received: all requests so far, in order of arrival.
        replies: what comes next, whatever is asked; when there is none, ``respond`` answers.
        respond: the usual answer to a request.
        connections: how many were opened.
        left: set when a client closes its connection while it is sent pieces.
    """

    url: str = ""
    received: list[Received] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    respond: Callable[[Received], Reply] = lambda received: usual(received)
    connections: int = 0
    under_way: int = 0
    most_under_way: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    left: threading.Event = field(default_factory=threading.Event)

    @property
    def last(self) -> Received:
        return self.received[-1]


def usual(received: Received) -> Reply:
    """What the incumbent says."""
    path = received.path.partition("?")[0]
    if path == "/info":
        return Reply(body=INFO)
    if path.startswith("/model/"):
        return Reply(body=REGISTRY)
    if path.startswith("/infer/lmm"):
        return Reply(body=caption("a dog"), headers={"x-request-id": "request-1"})
    return Reply(404, {"detail": "Not Found"})


def caption(text: str, **more: Any) -> dict[str, Any]:
    return {"inference_id": "id-1", "time": 0.25, "image": {"width": 64, "height": 48}, "response": {"<CAPTION>": text}, **more}


@contextmanager
def running_stub() -> Iterator[Stub]:
    """A stub on a free port of this machine."""
    stub = Stub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            stub.connections += 1

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            received = Received(self.command, self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            with stub.lock:
                stub.received.append(received)
                reply = stub.replies.pop(0) if stub.replies else None
                stub.under_way += 1
                stub.most_under_way = max(stub.most_under_way, stub.under_way)
            reply = reply or stub.respond(received)
            time.sleep(reply.delay_s)
            with stub.lock:
                stub.under_way -= 1
            self._send(reply)

        do_POST = do_GET  # noqa: N815

        def _send(self, reply: Reply) -> None:
            if not reply.status:
                self.close_connection = True
                return
            if reply.pieces is not None:
                self._send_pieces(reply, reply.pieces)
                return
            content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            kind = "text/plain" if isinstance(reply.body, bytes) else "application/json"
            try:
                self.send_response(reply.status)
                for name, value in {"content-type": kind, "content-length": str(len(content)), **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)
            except OSError:  # the client did not wait
                self.close_connection = True

        def _send_pieces(self, reply: Reply, pieces: Iterable[bytes | float]) -> None:
            headers = {"content-type": "text/event-stream", "transfer-encoding": "chunked", **reply.headers}
            try:
                self.send_response(reply.status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                for piece in pieces:
                    if not isinstance(piece, bytes):
                        time.sleep(piece)
                    else:
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                if reply.breaks_off:
                    self.close_connection = True
                else:
                    self.wfile.write(b"0\r\n\r\n")
            except OSError:
                self.close_connection = True
                stub.left.set()

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, request: Any, client_address: Any) -> None:
            if not isinstance(sys.exc_info()[1], ConnectionError):  # a client that has left
                super().handle_error(request, client_address)

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    stub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield stub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
