"""A real server process with the demo checkpoint and a key, and a folder of images; started once for all of these tests."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from florence2.client import InferenceHTTPClient
from tests.compatibility import install
from tests.compatibility.session import KEY
from tests.server.process import running_server

SCENE = Path(__file__).parents[2] / "examples" / "scene.png"


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FLORENCE2_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address. The known ids answer with the demo, and images are fetched from this machine."""
    demo = "florence-2-demo"
    settings = {
        "model": ["florence-2-base"],
        "models": {"florence-2-base": demo, "florence-2-large": demo},
        "management_keys": [KEY],
        "allow_http_urls": True,
        "allow_urls_without_domain": True,
        "allow_private_urls": True,
    }
    with running_server(**settings) as url:
        yield url


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """``scene.png``, ``scene.jpg``, ``turned.jpg`` (on its side, by its EXIF upright), and ``url.txt`` with where it is served."""
    folder = tmp_path_factory.mktemp("images")
    scene = Image.open(SCENE).convert("RGB")
    scene.save(folder / "scene.png")
    scene.save(folder / "scene.jpg", quality=95)
    exif = Image.Exif()
    exif[0x0112] = 6
    scene.crop((0, 0, 480, 360)).transpose(Image.Transpose.ROTATE_90).save(folder / "turned.jpg", quality=95, exif=exif)

    class Files(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    files = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Files, directory=str(folder)))
    thread = threading.Thread(target=files.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    (folder / "url.txt").write_text(f"http://127.0.0.1:{files.server_address[1]}/scene.jpg")
    yield folder
    files.shutdown()
    thread.join()
    files.server_close()


@pytest.fixture(scope="session")
def known_python() -> Path:
    """The interpreter that has the real client."""
    try:
        return install.python()
    except install.RegistryUnreachable as unreachable:
        pytest.skip(str(unreachable))


@pytest.fixture
def client(server: str) -> Iterator[InferenceHTTPClient]:
    with InferenceHTTPClient(server, KEY) as client:
        yield client.select_model("florence-2-base")
