"""``florence2 mcp``: flags into a model, folders and a way to be reached.

Nothing of the protocol or of the engine is imported before the command runs, and the model is loaded while hosts are answered already.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from florence2.cli.options import Adapter, Device, Model, Precision, chosen_model
from florence2.console import is_interactive, notify, shown
from florence2.errors import InvalidOption
from florence2.extras import requires
from florence2.weights.aliases import DEMO, DEMO_IS

if TYPE_CHECKING:
    from socket import socket

    from florence2.mcp.folders import Folders
    from florence2.mcp.model import AnsweringModel

DEFAULT_PORT = 9002


def mcp(
    model: Model = None,
    adapter: Adapter = None,
    allow: Annotated[
        list[str] | None,
        typer.Option("--allow", metavar="FOLDER", help="A folder whose images may be read. May be repeated. Default: no local file is."),
    ] = None,
    no_urls: Annotated[bool, typer.Option("--no-urls", help="Fetch no images by URL.")] = False,
    http: Annotated[bool, typer.Option("--http", help="Serve over HTTP on this machine instead of standard input and output.")] = False,
    port: Annotated[
        int | None, typer.Option("--port", "-P", min=0, max=65535, help=f"With --http: the port to listen on. Default: {DEFAULT_PORT}.")
    ] = None,
    api_url: Annotated[
        str | None,
        typer.Option("--api-url", metavar="URL", help="Ask a running florence2 serve for --model, instead of loading it in this process."),
    ] = None,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Serve the tasks as tools for AI assistants (MCP)."""
    import asyncio

    with requires("mcp", "florence2 mcp"):
        import mcp  # noqa: F401 - first, so that the package which is missing is the one that the extra names

        from florence2.listening import listen
        from florence2.mcp.folders import Folders
        from florence2.mcp.stdio import leave

    if port is not None and not http:
        raise InvalidOption("--port goes with --http", field="port")
    if api_url is not None and (model is None or adapter or (device, precision) != ("auto", "auto")):
        raise InvalidOption(
            "--api-url goes with --model, one of the server's models, and without --adapter, --device and --precision", field="api_url"
        )
    folders = Folders(allow or ())
    listening = listen(DEFAULT_PORT if port is None else port) if http else None
    if listening is None and is_interactive(sys.stdin):
        notify("florence2: waiting for messages of the protocol on standard input, as a host of MCP servers sends them; Ctrl-C ends")
    if api_url is not None and model is not None:
        answering = _served(model, api_url)
    else:
        answering = _loaded(chosen_model(model), device=device, precision=precision, adapters=adapter or ())
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(answering, folders, listening, allow_urls=not no_urls))
    leave(answering)


def _shown(model: str) -> str:
    """A model as answers name it: of a folder its name alone, on one line and as Unicode."""
    return shown(Path(model).resolve().name if Path(model).is_dir() else model)


async def _serve(model: AnsweringModel, folders: Folders, listening: socket | None, *, allow_urls: bool) -> None:
    """Serve over HTTP where a socket listens, else over standard input and output."""
    from florence2.mcp.pictures import Pictures
    from florence2.mcp.server import make_server

    pictures = Pictures(folders, allow_urls=allow_urls)
    server = make_server(model, pictures, note=f"It is {DEMO_IS}." if model.name == DEMO else "")
    model.start()
    try:
        if listening is None:
            from florence2.mcp.stdio import serve_stdio

            await serve_stdio(server)
        else:
            from florence2.mcp.http import serve_http

            await serve_http(server, listening, lambda address: notify(f"florence2: tools at {address} (Ctrl-C ends)"))
    finally:
        await pictures.close()


def _served(name: str, api_url: str) -> AnsweringModel:
    """A model of a running server."""
    from florence2.mcp.served import ServedModel

    return ServedModel(name, api_url)


def _loaded(name: str, **options: Any) -> AnsweringModel:
    """A model of this process."""
    from florence2.mcp.model import BackgroundModel

    return BackgroundModel(_shown(name), partial(_load, name, **options))


def _load(name: str, **options: Any) -> Any:
    """The engine."""
    with requires("engine", "florence2 mcp"):
        from florence2.engine.engine import load

    return load(name, **options)
