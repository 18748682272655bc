"""The few pages for people, and the parts of the API's description that can't be read off a signature.

Knows nothing of requests.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import fastapi_offline
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel

from florence2.server.errors import rows
from florence2.server.roboflow.schemas import InferRequest
from florence2.version import __version__

ASSETS = "/docs/assets"
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
)
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "pre{background:#f4f4f4;padding:1rem;overflow:auto}td,th{text-align:left;padding:.3rem .8rem .3rem 0;vertical-align:top}"
    ":target,.notice{background:#fff3c4}.notice{padding:.5rem 1rem}"
)
EXAMPLE = """curl {root}/infer/lmm -H 'Content-Type: application/json' -d '{{
  "model_id": "{model}", "prompt": "<CAPTION>",
  "image": {{"type": "base64", "value": "'$(base64 -w0 scene.png)'"}}}}'"""


def landing(models: Sequence[str], root: str, notice: str | None = None) -> str:
    """The page at ``/``; ``root`` is the path below which the server is offered, ``notice`` what is to be known of its model."""
    example = EXAMPLE.format(root=f"http://localhost:9001{root}", model=models[0] if models else "florence-2-base")
    return _page(
        "florence2",
        f"<h1>florence2 {__version__}</h1><p>Captions, boxes, masks and text of images.</p>"
        f"{'' if notice is None else f'<p class=notice>{html.escape(notice[:1].upper() + notice[1:])}.</p>'}"
        f"<p>Models: {html.escape(', '.join(models))}</p><pre>{html.escape(example)}</pre>"
        f'<p><a href="{root}/docs">All routes</a> · <a href="{root}/docs/errors">Errors</a> · <a href="{root}/readiness">Ready?</a></p>',
    )


def errors() -> str:
    """The page that ``help_url`` leads to."""
    cells = "".join(
        f'<tr id="{code}"><td><code>{code}</code></td><td>{status}</td><td>{html.escape(meaning)}</td><td>{html.escape(remedy)}</td></tr>'
        for code, status, meaning, remedy in rows()
    )
    return _page("Errors of florence2", f"<h1>Errors</h1><table><tr><th>code<th>status<th>when<th>what to do</tr>{cells}</table>")


def swagger(title: str, api_key: str | None, root: str) -> HTMLResponse:
    """The page of all routes, which fetches their description with the reader's key. Nothing of it comes from elsewhere."""
    query = f"?api_key={quote(api_key, safe='')}" if api_key else ""
    page = get_swagger_ui_html(
        openapi_url=f"{root}/openapi.json{query}",
        title=title,
        swagger_js_url=f"{root}{ASSETS}/swagger-ui-bundle.js",
        swagger_css_url=f"{root}{ASSETS}/swagger-ui.css",
        swagger_favicon_url="data:,",
    )
    page.headers["content-security-policy"] = POLICY
    page.headers["referrer-policy"] = "no-referrer"  # the page's address may hold the key
    return page


def asset_files() -> StaticFiles:
    """Swagger UI's files, as they lie in an installed package."""
    return StaticFiles(packages=[(fastapi_offline.__name__, "static")])


def infer_body() -> dict[str, Any]:
    """The ways to write the body of ``/infer/lmm``, for the API's description."""
    schema = InferRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    properties = {name: part for name, part in schema["properties"].items() if name != "image"}
    form = {"type": "object", "properties": {"image": {"type": "string", "format": "binary"}, **properties}}
    return {
        "application/json": {"schema": _inlined(InferRequest)},
        "multipart/form-data": {"schema": _without_refs(form)},
        "image/*": {"schema": {"type": "string", "format": "binary", "description": "The image; all fields in the query."}},
    }


def json_body(kind: type[BaseModel]) -> dict[str, Any]:
    """A JSON body that a route reads by itself, for the API's description."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": _inlined(kind)}}}}


def _inlined(kind: type[BaseModel]) -> dict[str, Any]:
    """A message's schema with its parts written out where they are used."""
    schema = kind.model_json_schema()
    return _resolve(schema, schema.get("$defs", {}))


def _without_refs(schema: dict[str, Any]) -> dict[str, Any]:
    return _resolve(schema, InferRequest.model_json_schema().get("$defs", {}))


def _resolve(part: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(part, list):
        return [_resolve(entry, definitions) for entry in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        return _resolve(definitions[part["$ref"].rpartition("/")[2]], definitions)
    return {name: _resolve(entry, definitions) for name, entry in part.items() if name != "$defs"}


def _page(title: str, body: str) -> str:
    return f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>{body}</html>'
