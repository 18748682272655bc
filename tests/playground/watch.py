"""A tab that is watched: whatever its console, its policy or its network says that it should not is kept for the end of the test."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import BrowserContext, ConsoleMessage, Page

# The browser itself writes a line for each answer that is an error; the tests of errors ask for those.
ANSWER_LINE = "Failed to load resource"
# Bodies are made of pieces, which Playwright does not show.
NOTES = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.violations.push(`${event.violatedDirective}: ${event.blockedURI} ${event.sample}`);
});
window.bodies = [];
const realFetch = window.fetch;
window.fetch = async (address, options) => {
  if (options?.body) window.bodies.push(await new Response(options.body).text());
  return realFetch(address, options);
};
"""


class Watch:
    """What went wrong in the tabs of one context.

    Args:
        context: new, without a page yet.
        address: the server's; nothing may be loaded from elsewhere.
    """

    def __init__(self, context: BrowserContext, address: str) -> None:
        self.faults: list[str] = []
        self.failed_answers: list[str] = []
        self._host = urlsplit(address).netloc
        self._context = context
        context.add_init_script(NOTES)
        context.on("console", self._note_console)
        context.on("weberror", lambda error: self.faults.append(f"uncaught: {error.error}"))
        context.on("request", lambda request: self._note_url(request.url))

    def check(self, *, errors_are_expected: bool = False) -> None:
        """Fail if anything went wrong."""
        for page in self._context.pages:
            self.faults += self._violations(page)
        assert not self.faults, "\n".join(self.faults)
        if not errors_are_expected:
            assert not self.failed_answers, "\n".join(self.failed_answers)

    def _note_console(self, message: ConsoleMessage) -> None:
        if message.type not in ("error", "warning"):
            return
        where = f"{message.text} ({message.location.get('url')})"
        (self.failed_answers if message.text.startswith(ANSWER_LINE) else self.faults).append(where)

    def _note_url(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.netloc != self._host:
            self.faults.append(f"loaded from elsewhere: {url}")

    @staticmethod
    def _violations(page: Page) -> list[Any]:
        return [] if page.is_closed() else page.evaluate("window.violations ?? []")
