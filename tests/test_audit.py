"""The look-up of known vulnerabilities, against a service on this machine."""

from __future__ import annotations

import importlib.util
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("pip_audit", reason="the look-up needs pip-audit")

pytestmark = pytest.mark.slow
WEAK = {"id": "TEST-1", "summary": "Lets anybody in.", "affected": [{"package": {"name": "weak", "ecosystem": "PyPI"}}]}


class Service(BaseHTTPRequestHandler):
    """Knows one package with a weakness."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        content = json.dumps({"vulns": [WEAK]} if asked["package"]["name"] == "weak" else {}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def service() -> Iterator[list[str]]:
    """The arguments that name the service."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield ["-s", "osv", "--osv-url", f"http://127.0.0.1:{server.server_port}/"]
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", Path(__file__).parents[1] / ".ci" / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_weakness_fails_the_check(audit: ModuleType, service: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pins = tmp_path / "pins.txt"
    own = audit.CONSTRAINTS.read_text()
    pins.write_text(f"{own}\nweak==2.0 ; python_version > '3'\n")
    assert audit.main(service, pins) == 1
    said = capsys.readouterr().out
    assert "weak 2.0 has TEST-1 (fixed in none yet): Lets anybody in." in said
    num_audited = re.search(r"(\d+) packages audited, 1 known vulnerabilities", said)
    assert num_audited is not None
    assert int(num_audited[1]) > 100
    pins.write_text("strong==1.0\n")
    assert audit.main(service, pins) == 0


def test_a_service_that_is_not_there_is_said_and_fails_nothing(audit: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.main(["-s", "osv", "--osv-url", "http://127.0.0.1:1/"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("audit: nothing was audited, ")
    assert said.count("\n") == 1
