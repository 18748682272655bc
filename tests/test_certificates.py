"""HTTPS: the name that was asked for is checked though the connection goes to an address, and what unknown authorities are told as."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from florence2.certificates import certificate_hint, certificates
from florence2.client import ConnectionFailed, InferenceHTTPClient
from florence2.client.configuration import InferenceConfiguration
from florence2.errors import DownloadError
from florence2.url_fetch import fetch_blocking
from florence2.url_policy import FetchError, FetchPolicy
from florence2.weights import hub

NAME = "pictures.example"
POLICY = FetchPolicy(allow_private=True, timeout_s=5.0)

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificates with the openssl command")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for ``NAME`` and its key, in one file: its own authority."""
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={NAME}"]
    command += ["-addext", f"subjectAltName=DNS:{NAME}", "-keyout", str(folder / "key"), "-out", str(folder / "certificate")]
    subprocess.run(command, check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_text((folder / "certificate").read_text() + (folder / "key").read_text())
    return both


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "7")
        self.end_headers()
        self.wfile.write(b"picture")

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


class Host(ThreadingHTTPServer):
    """Speaks HTTPS; ``names`` are those that clients asked for in the handshake."""

    def __init__(self, certificate: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.names: list[str | None] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        context.sni_callback = lambda connection, name, of: self.names.append(name)
        self.socket = context.wrap_socket(self.socket, server_side=True)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients that don't trust it hang up


@pytest.fixture
def host(authority: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    real = socket.getaddrinfo

    def look_up(name: str | bytes, port: Any, *arguments: Any, **options: Any) -> Any:
        text = name.decode() if isinstance(name, bytes) else name
        return real("127.0.0.1" if text.endswith(".example") else name, port, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
    server = Host(authority)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    certificates.cache_clear()
    yield server
    certificates.cache_clear()
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_name_is_checked_though_an_address_is_connected_to(host: Host, authority: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    assert fetch_blocking(POLICY, "test", f"https://{NAME}:{host.server_port}/x") == b"picture"
    with pytest.raises(FetchError, match=r"could not be reached.*Hostname mismatch") as caught:
        fetch_blocking(POLICY, "test", f"https://another.example:{host.server_port}/x")
    assert "SSL_CERT_FILE" not in caught.value.reason  # it would not help
    assert host.names == [NAME, "another.example"]


def test_unknown_authority_of_a_picture(host: Host) -> None:
    with pytest.raises(FetchError, match=r"could not be reached.*self.signed.*no authority.*ca-certificates.*SSL_CERT_FILE") as caught:
        fetch_blocking(POLICY, "test", f"https://{NAME}:{host.server_port}/x")
    assert caught.value.rule == "connection"
    assert len(caught.value.reason) < 450


def test_unknown_authority_of_a_server(host: Host) -> None:
    client = InferenceHTTPClient(f"https://{NAME}:{host.server_port}", "key")
    with client, client.use_configuration(InferenceConfiguration(max_retries=0)), pytest.raises(ConnectionFailed) as caught:
        client.get_server_info()
    assert "no authority" in caught.value.message
    assert "is the server running?" not in caught.value.message  # it is


def test_unknown_authority_of_the_hub(host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"https://{NAME}:{host.server_port}")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(DownloadError, match=r"could not be fetched from https://pictures.*No authority.*SSL_CERT_FILE") as caught:
        hub.fetch("someone/model")
    assert len(caught.value.message) < 500


def _failure(code: int | None) -> Exception:
    error = ssl.SSLCertVerificationError("certificate verify failed")
    if code is not None:
        error.verify_code = code
    outer = OSError("outer")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    ("error", "is_hinted"),
    [
        *((_failure(code), True) for code in (None, 18, 19, 20, 21)),
        *((_failure(code), False) for code in (10, 62)),  # out of date; another name
        (OSError("refused"), False),
        (None, False),
    ],
)
def test_only_unknown_issuers_are_hinted_at(error: Exception | None, is_hinted: bool) -> None:
    assert (certificate_hint(error) is not None) == is_hinted
