"""A page with the viewer alone, in a real browser: for tests that need no server.

Its files come from the package, with the policy of the playground's page; pictures are handed in as bytes. Whatever the browser's console
reports is kept, so that a test can say that there was nothing.
"""

from __future__ import annotations

import io
import mimetypes
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote

from PIL import Image, ImageDraw
from playwright.sync_api import Browser, CDPSession, Dialog, Page

from florence2.server.playground.page_files import FILES as ASSETS
from florence2.server.web.page_files import POLICY

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>The viewer</title><link rel="icon" href="data:,"><link rel="stylesheet" href="/viewer.css"><link rel="stylesheet" href="/page.css">
<script type="module" src="/page.js"></script></head><body><div id="viewer"></div></body></html>"""
STYLE = "html { color-scheme: light dark; } body { margin: 0; } #viewer { height: 100vh; }"
SCRIPT = """
import { Viewer } from "/viewer.js";
window.viewer = new Viewer(document.getElementById("viewer"), {});
window.events = [];
for (const type of ["hover", "select", "region"]) viewer.addEventListener(type, ({ detail }) => events.push({ type, ...detail }));
window.frame = () => new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
"""
FILES = {"/": (PAGE.encode(), "text/html"), "/page.css": (STYLE.encode(), "text/css"), "/page.js": (SCRIPT.encode(), "text/javascript")}

WHOLE = {"label": "all", "box": [0, 0, 400, 300]}
PATCH = (100, 60, 220, 180)  # of a picture that is white elsewhere
PHONE = {"viewport": {"width": 360, "height": 640}, "device_scale_factor": 3, "has_touch": True, "is_mobile": True}
NESTED = [
    {"label": "house", "box": [50, 50, 350, 280], "score": 0.9},
    {"label": "window", "box": [150, 100, 250, 200], "score": 0.4},
    {"label": "door", "quad": [60, 60, 120, 70, 110, 130, 55, 120]},
    {"label": "ring", "polygons": [[260, 60, 340, 60, 340, 140, 260, 140], [280, 80, 320, 80, 320, 120, 280, 120]], "score": 0.7},
]


class Files(ThreadingHTTPServer):
    """Serves the page and pictures.

    Attributes:
        pictures: their bytes, by path.
        url: the address.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pictures: dict[str, bytes] = {}
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Files  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        content, kind = self._found()
        self.send_response(200 if content else 404)
        for name, value in (("content-security-policy", POLICY), ("content-type", kind), ("content-length", str(len(content)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _found(self) -> tuple[bytes, str]:
        name = self.path.lstrip("/")
        if self.path in self.server.pictures:
            return self.server.pictures[self.path], "image/png"
        if self.path in FILES or name not in ASSETS.names:
            return FILES.get(self.path, (b"", "text/plain"))
        return ASSETS.read_bytes(name), mimetypes.guess_type(name)[0] or "text/plain"

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[Files]:
    """A server of the page, on a thread."""
    with Files() as files:
        thread = threading.Thread(target=files.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield files
        finally:
            files.shutdown()
            thread.join()


class Stage:
    """The page.

    Attributes:
        page: the page itself.
        reports: what the console said, errors and warnings included.
    """

    def __init__(self, browser: Browser, files: Files, **options: Any) -> None:
        self._size: Any = options.setdefault("viewport", {"width": 800, "height": 600})
        self._context = browser.new_context(**options)
        self._files = files
        self.page: Page = self._context.new_page()
        self.page.set_default_timeout(10_000)
        self.reports: list[str] = []
        self.page.on("console", lambda message: self.reports.append(message.text))
        self.page.on("pageerror", lambda error: self.reports.append(str(error)))
        self.page.on("dialog", self._dialog)

    def _dialog(self, dialog: Dialog) -> None:
        self.reports.append(f"a dialog: {dialog.message}")
        dialog.dismiss()

    def load(self) -> None:
        """Load the page anew."""
        self.page.mouse.move(0, 0)
        self.page.set_viewport_size(self._size)
        self.page.goto(self._files.url)
        self.page.wait_for_function("window.viewer")
        self.reports.clear()

    def close(self) -> None:
        self._context.close()

    def serve(self, name: str, picture: Image.Image | bytes) -> str:
        """The path at which a picture can now be loaded."""
        self._files.pictures[f"/{name}"] = picture if isinstance(picture, bytes) else encoded(picture)
        return f"/{name}"

    def link(self, name: str, picture: Image.Image) -> str:
        """The whole address of a picture; the name may have characters that are escaped in requests."""
        path = self.serve(name, picture)
        self._files.pictures[quote(path, safe="/?=&$'")] = self._files.pictures[path]
        return self._files.url + path

    def show(self, picture: Image.Image, objects: Sequence[dict[str, Any]] = (), name: str = "picture.png") -> None:
        """Show a picture with one layer."""
        self.run("source => viewer.setImage(source)", {"url": self.serve(name, picture), "name": name})
        self.layers({"id": "found", "title": "Objects", "visible": True, "objects": list(objects)})

    def layers(self, *layers: dict[str, Any]) -> None:
        self.run("layers => viewer.setLayers(layers)", list(layers))
        self.frame()

    def run(self, expression: str, argument: Any = None) -> Any:
        """What an expression of JavaScript gives."""
        return self.page.evaluate(expression, argument)

    def frame(self) -> None:
        """Wait until what changed is drawn."""
        self.run("() => frame()")

    def events(self, kind: str) -> list[dict[str, Any]]:
        """The events of a kind since the last call, which forgets those of other kinds too."""
        found = self.run("() => events.splice(0)")
        return [{name: value for name, value in event.items() if name != "type"} for event in found if event["type"] == kind]

    def boxes(self) -> list[list[float]]:
        """Where each object's outline is on the screen: left, top, right, bottom."""
        self.frame()
        return self.rectangles(".viewer-object:not(.is-hidden) .viewer-line")

    def rectangles(self, selector: str) -> list[list[float]]:
        """Where elements are on the screen."""
        return self.run(
            """(selector) => [...document.querySelectorAll(selector)].map((element) => {
                const { left, top, right, bottom } = element.getBoundingClientRect();
                return [left, top, right, bottom];
            })""",
            selector,
        )

    def labels(self) -> list[str]:
        """The labels that are seen."""
        self.frame()
        seen = "[...document.querySelectorAll('.viewer-label')].filter((label) => getComputedStyle(label).visibility === 'visible')"
        return self.run(f"() => {seen}.map((label) => label.innerText)")

    def point(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of the picture is on the screen, as the first object's outline shows: its box must be the whole picture."""
        left, top, right, bottom = self.boxes()[0]
        width, height = self.run("() => document.querySelector('.viewer-picture').ariaLabel.match(/\\d+/g).map(Number)")
        return left + x * (right - left) / width, top + y * (bottom - top) / height

    def touch(self) -> Touch:
        return Touch(self._context.new_cdp_session(self.page))


class Touch:
    """Fingers on the page; each list has a point per finger."""

    def __init__(self, session: CDPSession) -> None:
        self._session = session

    def _send(self, kind: str, points: Sequence[tuple[float, float]]) -> None:
        places = [{"x": x, "y": y, "id": index} for index, (x, y) in enumerate(points)]
        self._session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})

    def drag(self, *steps: Sequence[tuple[float, float]]) -> None:
        """Put the fingers down, move them from step to step, lift them."""
        self._send("touchStart", steps[0])
        for points in steps[1:]:
            self._send("touchMove", points)
        self._send("touchEnd", [])


def encoded(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def patched(width: int = 400, height: int = 300) -> Image.Image:
    """A picture with a blue patch."""
    picture = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(picture).rectangle((PATCH[0], PATCH[1], PATCH[2] - 1, PATCH[3] - 1), fill="blue")
    return picture
