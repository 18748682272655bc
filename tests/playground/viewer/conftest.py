"""One page with the viewer for each kind of screen, in the browser of each file of tests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.playground.viewer.stage import Files, Stage, serving


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


@pytest.fixture(scope="module")
def stages(browser: Browser) -> Iterator[Stages]:
    with serving() as files:
        yield Stages(browser, files)


@pytest.fixture
def stage(stages: Stages, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """The page, which must be silent."""
    stage = stages.loaded(getattr(request, "param", {}))
    yield stage
    assert stage.reports == []
