"""The application around a scripted engine without any socket, and what is sent to it."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from PIL import Image

from fixtures.fake_engine import FakeEngine
from florence2.server.app import create_app
from florence2.server.inference.models import Loader
from florence2.server.settings import Settings


@asynccontextmanager
async def client_of(engine: FakeEngine | None = None, loader: Loader | None = None, **settings: Any) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of an application around a fake engine, from start to end of its life."""
    app = create_app(Settings(**settings), engine=engine if engine or loader else FakeEngine(), loader=loader)
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with app.router.lifespan_context(app), httpx2.AsyncClient(transport=transport, base_url="http://server") as client:
        client.app = app  # type: ignore[attr-defined]
        yield client


def image_bytes(size: tuple[int, int] = (64, 48), kind: str = "PNG", mode: str = "RGB", color: Any = "red", **options: Any) -> bytes:
    """A plain image file."""
    file = io.BytesIO()
    Image.new(mode, size, color).save(file, kind, **options)
    return file.getvalue()


def rotated_jpeg(size: tuple[int, int] = (64, 48)) -> bytes:
    """A JPEG whose EXIF says that it lies on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return image_bytes(size, "JPEG", exif=exif)


def image_field(data: bytes | None = None) -> dict[str, Any]:
    """An image as it stands in a request."""
    return {"type": "base64", "value": base64.b64encode(data or image_bytes()).decode("ascii")}


def body(**fields: Any) -> dict[str, Any]:
    """The body of a request, as the documentation shows it, with other fields."""
    return {"api_key": "KEY", "model_id": "florence-2-base", "prompt": "<CAPTION>", "image": image_field(), **fields}
