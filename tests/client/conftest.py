from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from florence2.client import InferenceHTTPClient
from tests.client.stub import Stub, running_stub

Call = Callable[..., Any]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    proxies = [f"{scheme}_proxy" for scheme in ("http", "https", "all", "no")]
    for name in ("FLORENCE2_API_KEY", *proxies, *map(str.upper, proxies)):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def stub() -> Iterator[Stub]:
    with running_stub() as stub:
        yield stub


@pytest.fixture
def client(stub: Stub) -> Iterator[InferenceHTTPClient]:
    with InferenceHTTPClient(stub.url, "KEY1234567890") as client:
        yield client


@pytest.fixture(scope="session")
def picture() -> Image.Image:
    """64 x 48, red on the left and blue on the right."""
    image = Image.new("RGB", (64, 48), (220, 30, 20))
    image.paste((20, 40, 210), (32, 0, 64, 48))
    return image


@pytest.fixture
def jpeg(picture: Image.Image, tmp_path: Path) -> Path:
    path = tmp_path / "dog.jpg"
    picture.save(path, quality=95)
    return path


@pytest.fixture(scope="session")
def jpeg_bytes(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=95)
    return buffer.getvalue()


@pytest.fixture(params=["blocking", "awaited"])
def call(request: pytest.FixtureRequest) -> Call:
    """Calls a method by name, itself or its twin."""

    def run(client: InferenceHTTPClient, name: str, *arguments: Any, **options: Any) -> Any:
        if request.param == "blocking":
            return getattr(client, name)(*arguments, **options)
        return asyncio.run(getattr(client, name + "_async")(*arguments, **options))

    return run
