"""The few pages for people: the landing page, the description of all routes, the errors. Knows no API."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Sequence
from urllib.parse import quote

import fastapi_offline
from fastapi import APIRouter, Query, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles

from florence2.server.errors import rows
from florence2.server.http.state import SERVER_NAME, state_of
from florence2.version import __version__

ASSETS = "/docs/assets"
_SHARED_POLICY = "style-src 'self' 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
POLICY = f"default-src 'none'; {_SHARED_POLICY}"
"""Of pages without a script."""
PAGE = {"content-security-policy": POLICY}
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "pre{background:#f4f4f4;padding:1rem;overflow:auto}td,th{text-align:left;padding:.3rem .8rem .3rem 0;vertical-align:top}"
    ":target,.notice{background:#fff3c4}.notice{padding:.5rem 1rem}"
)

router = APIRouter(include_in_schema=False)


@router.head("/")
@router.get("/", response_class=HTMLResponse)
async def landing(request: Request) -> Response:
    """A page for people who open the address in a browser; what it is about as JSON for programs that ask for it."""
    server = state_of(request)
    models, root, accepted = server.models.known, server.settings.root_path, request.headers.get("accept", "")
    vary = {"vary": "Accept"}
    if "application/json" in accepted and "text/html" not in accepted:
        links = {name: f"{root}/{path}" for name, path in (("routes", "docs"), ("errors", "docs/errors"), ("readiness", "readiness"))}
        content = {"name": SERVER_NAME, "version": __version__, "models": models, "notice": server.notice, "links": links}
        return JSONResponse(content, headers=vary)
    page = next((api.front_page for api in server.apis if api.front_page is not None), None)
    if page is not None:
        return page(request)
    model = models[0] if models else "florence-2-base"
    examples = [api.example(f"http://localhost:9001{root}", model) for api in server.apis if api.example is not None]
    return HTMLResponse(_landing(models, root, examples, server.notice), headers=vary | PAGE)


@router.get("/docs", response_class=HTMLResponse)
async def docs(request: Request, api_key: str | None = Query(None)) -> HTMLResponse:
    """The description of all routes; a key in the query is passed on to fetch it."""
    return _swagger(SERVER_NAME, api_key, state_of(request).settings.root_path)


@router.get("/docs/errors", response_class=HTMLResponse)
async def docs_errors() -> HTMLResponse:
    """Every error, for the links in answers."""
    return HTMLResponse(_errors(), headers=PAGE)


def asset_files() -> StaticFiles:
    """Swagger UI's files, as they lie in an installed package."""
    return StaticFiles(packages=[(fastapi_offline.__name__, "static")])


def _landing(models: Sequence[str], root: str, examples: Sequence[str], notice: str | None) -> str:
    """The page at ``/`` where no API has one.

    Args:
        models: the ids that a request may name.
        root: the path below which the server is offered.
        examples: calls to copy.
        notice: a sentence about the model that is loaded; None: nothing is to be said of it.
    """
    return _page(
        "florence2",
        f"<h1>florence2 {__version__}</h1><p>Captions, boxes, masks and text of images.</p>"
        f"{'' if notice is None else f'<p class=notice>{html.escape(notice[:1].upper() + notice[1:])}.</p>'}"
        f"<p>Models: {html.escape(', '.join(models))}</p>{''.join(f'<pre>{html.escape(example)}</pre>' for example in examples)}"
        f'<p><a href="{root}/docs">All routes</a> · <a href="{root}/docs/errors">Errors</a> · <a href="{root}/readiness">Ready?</a></p>',
    )


def _errors() -> str:
    """The page that ``help_url`` leads to."""
    cells = "".join(
        f'<tr id="{code}"><td><code>{code}</code></td><td>{status}</td><td>{html.escape(meaning)}</td><td>{html.escape(remedy)}</td></tr>'
        for code, status, meaning, remedy in rows()
    )
    return _page("Errors of florence2", f"<h1>Errors</h1><table><tr><th>code<th>status<th>when<th>what to do</tr>{cells}</table>")


def _swagger(title: str, api_key: str | None, root: str) -> HTMLResponse:
    """The page of all routes, which fetches their description with the reader's key. Nothing of it comes from elsewhere."""
    query = f"?api_key={quote(api_key, safe='')}" if api_key else ""
    page = get_swagger_ui_html(
        openapi_url=f"{root}/openapi.json{query}",
        title=title,
        swagger_js_url=f"{root}{ASSETS}/swagger-ui-bundle.js",
        swagger_css_url=f"{root}{ASSETS}/swagger-ui.css",
        swagger_favicon_url="data:,",
    )
    page.headers["content-security-policy"] = _with_script(bytes(page.body))
    return page


def _with_script(page: bytes) -> str:
    """The policy of a page that runs one script of its own, known by its digest, and calls this server."""
    script = re.search(rb"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script[1] if script else b"").digest()).decode()
    return f"default-src 'none'; script-src 'self' 'sha256-{digest}'; connect-src 'self'; font-src data:; {_SHARED_POLICY}"


def _page(title: str, body: str) -> str:
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><link rel="icon" href="data:,"><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en">{head}{body}</html>'
