"""The description of all routes in a browser: its own policy lets it work, and no request leaves for elsewhere."""

from __future__ import annotations

import pytest

from tests.playground.conftest import OpenPage

pytestmark = pytest.mark.slow


def test_the_description_is_drawn_by_the_server_alone(demo: str, open_page: OpenPage) -> None:
    with open_page(demo, path="/docs?api_key=a-secret-key") as page:  # the tab fails the test if anything else is asked for
        page.locator("[id$=readiness_get] .opblock-summary").click()
        page.get_by_role("button", name="Try it out").click()
        page.get_by_role("button", name="Execute").click()
        page.locator(".live-responses-table .response").first.wait_for()
        assert page.evaluate("document.querySelectorAll('.opblock').length") > 5
