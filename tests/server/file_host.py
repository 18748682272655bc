"""Another host of the web, on this machine: it answers a few paths with given bytes."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FETCHES_LOCALLY: dict[str, Any] = {"allow_http_urls": True, "allow_urls_without_domain": True, "allow_private_urls": True}
"""Settings with which the server fetches from it."""


@contextmanager
def host_of(files: Mapping[str, bytes]) -> Iterator[str]:
    """The address of a host with these files by path; all are declared as plain text."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = files.get(self.path)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Type", "text/plain")
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
