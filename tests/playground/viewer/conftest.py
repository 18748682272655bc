"""A browser for the tests of the viewer, with one page for each kind of screen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.playground.viewer.stage import Files, Stage, serving, start_chromium


class Stages:
    """One page for each kind of screen."""

    def __init__(self, browser: Browser, files: Files) -> None:
        self._browser, self._files = browser, files
        self._stages: dict[str, Stage] = {}

    def loaded(self, options: dict[str, Any]) -> Stage:
        """The page on this screen, loaded anew."""
        key = json.dumps(options)
        if key not in self._stages:
            self._stages[key] = Stage(self._browser, self._files, **options)
        self._stages[key].load()
        return self._stages[key]


@pytest.fixture(scope="package")
def stages() -> Iterator[Stages]:
    with serving() as files, sync_playwright() as playwright:
        browser = start_chromium(playwright)
        yield Stages(browser, files)
        browser.close()


@pytest.fixture
def stage(stages: Stages, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """The page, which must be silent."""
    stage = stages.loaded(getattr(request, "param", {}))
    yield stage
    assert stage.reports == []
