"""A browser for each file of tests, and tabs in it that are watched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api", reason="the tests in a browser need Playwright")

from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.playground import install
from tests.playground.watch import Watch
from tests.server.file_host import FETCHES_LOCALLY
from tests.server.process import running_server

TIMEOUT_MS = 15_000
OpenPage = Callable[..., Any]


@pytest.fixture(scope="session")
def demo() -> Iterator[str]:
    """The address of a server with the demo model, which fetches from this machine."""
    with running_server(models={}, model=["florence-2-demo"], **FETCHES_LOCALLY) as url:
        yield url


# Not for the whole session: while Playwright runs, no other test of this process may have an event loop.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = install.browser()
    if program is None:
        pytest.skip(install.ADVICE)
    expect.set_options(timeout=TIMEOUT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser) -> OpenPage:
    """Opens the page of a server in a new window: ``with open_page(url) as page``. What goes wrong there fails the test."""

    @contextmanager
    def opened(url: str, *, errors_are_expected: bool = False, path: str = "/", **options: Any) -> Iterator[Page]:
        options = {"locale": "en-US", "viewport": {"width": 1280, "height": 800}, "color_scheme": "light", **options}
        context = browser.new_context(accept_downloads=True, permissions=["clipboard-read", "clipboard-write"], **options)
        context.set_default_timeout(TIMEOUT_MS)
        watch = Watch(context, url)
        try:
            page = context.new_page()
            page.goto(url + path)
            yield page
            watch.check(errors_are_expected=errors_are_expected)
        finally:
            context.close()

    return opened
