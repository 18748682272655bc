"""The files of a page, as they lie in the installed package, and the headers that all of them are sent with.

In: a name. Out: a response with the right type whatever the machine's own table of types says, and a tag of the content by which browsers
see a new version at once. Names are looked up in a list that is made once, so no name leads out of the folders. Knows no routes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable

from starlette.requests import Request
from starlette.responses import Response

from florence2.server.errors import NotFound

MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; font-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SAFETY = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
"""Headers of everything that a page is made of."""


class PageFiles:
    """The files of a page: its own and those that several pages have.

    Args:
        package: the dotted name of the page's package, whose folder ``assets`` has its own files.

    Attributes:
        names: the paths of all of them, with slashes.
    """

    def __init__(self, package: str) -> None:
        self._files = {name: file for room in (__package__ or "", package) for name, file in _walk(files(room) / "assets")}
        self.names = tuple(sorted(self._files))

    def response(self, request: Request, name: str) -> Response:
        """One of the files.

        Args:
            request: what asks for it.
            name: its path below the folder, with slashes.

        Raises:
            NotFound: there is no such file.
        """
        if name not in self._files:
            raise NotFound(f"the page has no file {name[:100]!r}")
        return file_response(request, self.read_bytes(name), MEDIA_TYPES[_suffix(name)])

    def read_text(self, name: str) -> str:
        """A file as text."""
        return self._files[name].read_text(encoding="utf-8")

    def read_bytes(self, name: str) -> bytes:
        """A file's content."""
        return self._files[name].read_bytes()


def file_response(request: Request, content: bytes, media_type: str, vary: str | None = None) -> Response:
    """The content, or 304 to a browser that has the same already.

    Args:
        request: what asks for it.
        content: the bytes.
        media_type: their type.
        vary: the request's header on which the content depends; None: it depends on none.
    """
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**SAFETY, "cache-control": "no-cache", "etag": tag, **({"vary": vary} if vary else {})}
    known = [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]
    if tag in known:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)


def _suffix(name: str) -> str:
    return "." + name.rpartition(".")[2]


def _walk(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, Traversable]]:
    """Each file that a page can have, with its path below the folder."""
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
        elif _suffix(entry.name) in MEDIA_TYPES:
            yield prefix + entry.name, entry
