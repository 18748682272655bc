"""The pages load nothing from elsewhere: they work without a network, and tell nobody who looks at them."""

from __future__ import annotations

import re

import pytest

from tests.server.fakes import client_of

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("path", ["/", "/docs", "/docs/errors"])
async def test_pages_load_nothing_from_elsewhere(path: str) -> None:
    async with client_of() as client:
        text = (await client.get(path)).text
        loaded = re.findall(r"""<(?:script|link|img|iframe)[^>]*?(?:src|href)=["']([^"']+)""", text)
        assert [address for address in loaded if not address.startswith(("/", "playground/", "data:"))] == []
        assert not re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", text)
        for address in loaded:
            if address.endswith(".css"):
                assert not re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", (await client.get(address)).text)
    if path == "/docs":
        assert len(loaded) == 3
        assert '"layout": "BaseLayout"' in text  # the other layout asks a validator on the internet about the description


@pytest.mark.parametrize("path", ["/", "/docs", "/docs/errors", "/docs/assets/swagger-ui.css", "/openapi.json", "/none", "/info"])
async def test_every_answer_says_how_little_a_browser_may_do_with_it(path: str) -> None:
    for is_page in (True, False):
        async with client_of(playground=is_page) as client:
            headers = (await client.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"  # the page's address may hold the key
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert "script-src 'unsafe-inline'" not in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
