"""``florence2 view``: the folder of a label run as a page in the browser.

Nothing of the server is imported before the command runs.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from threading import Timer
from typing import Annotated

import typer

from florence2.console import notify, report
from florence2.extras import requires

PATIENCE_S = 2.0  # until a reader is told what is waited for


def view(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder that florence2 label had as --output.")],
    port: Annotated[
        int | None,
        typer.Option("--port", "-P", min=0, max=65535, help="The port to listen on; 0 for a free one. Default: 9003, or a free one."),
    ] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the address, and open no browser.")] = False,
) -> None:
    """Look through the labelled pictures of a run in a browser."""
    with requires("server", "florence2 view"):
        from florence2.server.label_viewer.folder import source_of
        from florence2.server.label_viewer.process import listen_at, open_browser, serve
        from florence2.server.label_viewer.run import Run

    source = source_of(folder)
    listening = listen_at(port)
    patience = Timer(PATIENCE_S, notify, ["florence2: reading the labels; of many pictures that takes a while"])
    patience.daemon = True
    patience.start()
    try:
        run = Run(source)
    finally:
        patience.cancel()

    def ready(address: str) -> None:
        report(f"florence2: {source.title} at {address} (Ctrl-C ends)")
        if not no_browser:
            open_browser(address)

    with suppress(KeyboardInterrupt):
        serve(run, listening, ready)
