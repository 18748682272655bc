"""The distribution's metadata that depend on where the project is published: its URLs, and README with links that work on an index's page.

The address stands in ``pyproject.toml`` alone (``[tool.hatch.metadata.hooks.custom] repository``). While it is empty there are no URLs, and
README goes without the pictures and links that would lead nowhere. Used by hatchling at each build; knows nothing of the package.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_PICTURE = re.compile(r"!\[([^\]]*)\]\((?!https?:)([^)\s]+)\)")
_LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!https?:|mailto:|#)([^)\s]+)\)")
_TAG = re.compile(r"(<(?:img|source)\b[^>]*?\bsrc(?:set)?=\")(?!https?:)([^\"]+)(\"[^>]*>)")
PLACES = {
    "Homepage": "",
    "Documentation": "/tree/main/docs",
    "Source": "",
    "Issues": "/issues",
    "Changelog": "/blob/main/CHANGELOG.md",
}


class CustomMetadataHook(MetadataHookInterface):
    """Adds ``urls`` and ``readme``."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Fill them in."""
        repository = str(self.config.get("repository", "")).rstrip("/")
        if repository:
            metadata["urls"] = {name: repository + path for name, path in PLACES.items()}
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": for_index(text, repository, f"v{metadata['version']}")}


def for_index(text: str, repository: str, tag: str) -> str:
    """A page of the repository as a page that stands alone.

    Args:
        text: Markdown.
        repository: address of the repository, as GitHub and GitLab lay it out; empty if there is none.
        tag: the version whose files the links lead to.
    """
    if not repository:
        return _LINK.sub(r"\1", _TAG.sub("", _PICTURE.sub("", text)))
    text = _TAG.sub(rf"\1{repository}/raw/{tag}/\2\3", text)
    text = _PICTURE.sub(rf"![\1]({repository}/raw/{tag}/\2)", text)
    return _LINK.sub(rf"[\1]({repository}/blob/{tag}/\2)", text)
