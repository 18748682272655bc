"""The page of labels in a browser: with the browser and the watched tabs of the playground's tests."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

pytest.importorskip("playwright.sync_api", reason="the tests in a browser need Playwright")

import asyncio

import uvicorn

from fixtures.labelled_scenes import CLASSES, set_of
from florence2.datasets.labelled import LabelledPicture
from florence2.listening import LocalServer, listen
from florence2.server.label_viewer.app import create_app
from florence2.server.label_viewer.index import Problem
from florence2.server.label_viewer.run import Run, Source
from tests.playground.conftest import browser, open_page

__all__ = ["browser", "open_page"]


@contextmanager
def viewing(pictures: Sequence[LabelledPicture], problems: Sequence[Problem] = (), classes: Sequence[str] = CLASSES) -> Iterator[str]:
    """The address of a page that shows these pictures; a list may grow."""
    run = Run(Source("scenes", lambda: (set_of(pictures, classes), problems), lambda: len(pictures)))
    listening = listen(0)
    server = LocalServer(uvicorn.Config(create_app(run), log_config=None, ws="none", lifespan="off", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()
