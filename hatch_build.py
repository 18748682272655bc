"""What depends on where the distribution is built: metadata by where the project is published, and the compiled routines of a wheel.

The address stands in ``pyproject.toml`` alone (``[tool.hatch.metadata.hooks.custom] repository``). While it is empty there are no URLs, and
README goes without the pictures and links that would lead nowhere. ``FLORENCE2_NATIVE_BUILD`` says which routines a wheel carries; decision
0023 has its values. Used by hatchling at each build.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
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

NATIVE_BUILD = "FLORENCE2_NATIVE_BUILD"
ROUTINES = "florence2/model/cpu"


class NativeBuildHook(BuildHookInterface):
    """Puts the compiled routines for the usual processors into a wheel, and the platform that they need into its name.

    Without a compiler, on other systems than Linux, and with ``FLORENCE2_NATIVE_BUILD=0`` the wheel is for every platform and has none. An
    editable installation has none either: its sources change, and what is compiled then is kept in the user's cache.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build them, in a temporary folder that lasts until ``finalize``."""
        self.folder: tempfile.TemporaryDirectory[str] | None = None
        wanted = os.environ.get(NATIVE_BUILD, "")
        machine = platform.machine() if wanted in ("", "1") else wanted
        source = Path(self.root) / "src"
        # Images install the requirements first, from a tree without the package.
        if version == "editable" or wanted == "0" or not (source / ROUTINES / "built_ahead.py").is_file():
            return
        sys.path.insert(0, str(source))
        from florence2.model.cpu import building, built_ahead

        if wanted == "" and (sys.platform != "linux" or machine not in built_ahead.LEVELS or building.find_compiler() is None):
            return
        if machine not in built_ahead.LEVELS:
            raise ValueError(f"{NATIVE_BUILD} must be 0, 1 or one of {', '.join(built_ahead.LEVELS)}, got {wanted!r}")
        self.folder = tempfile.TemporaryDirectory(prefix="florence2-build-")
        try:
            libraries = built_ahead.build_libraries(machine, Path(self.folder.name))
            tag = built_ahead.platform_tag(libraries, machine)
        except building.BuildFailed as failure:
            if wanted:
                raise
            self.app.display_warning(f"The wheel has no compiled routines: {failure}")
            return
        build_data["force_include"] |= {str(path): f"{ROUTINES}/{path.name}" for path in libraries}
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{tag}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the temporary folder."""
        if self.folder is not None:
            self.folder.cleanup()


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
