"""The files of the page, and where they are sent from."""

from __future__ import annotations

from florence2.server.web.page_files import PageFiles

ASSETS_PATH = "/playground/assets"
FILES = PageFiles("florence2.server.playground")
