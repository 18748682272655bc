"""A browser for the tests of the page: ``python -m tests.playground.install`` installs Debian's Chromium where it may."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ADVICE = "no Chromium is found, so the page is not tested in a browser; on Debian: apt-get install chromium"
_APT = ("apt-get", "--quiet", "--option", "Acquire::Retries=1", "--option", "Acquire::http::Timeout=30")


def browser() -> str | None:
    """The path of the browser; None: there is none."""
    return next((path for name in PROGRAMS if (path := shutil.which(name))), None)


def install() -> None:
    """Install the browser, if there is none and this user may."""
    if browser() is not None or shutil.which("apt-get") is None or os.geteuid() != 0:
        return
    for arguments in (("update",), ("install", "--yes", "--no-install-recommends", "chromium")):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        ran = subprocess.run([*_APT, *arguments], env=environment, capture_output=True, text=True, check=False)
        if ran.returncode:
            print(f"apt-get {arguments[0]} failed: {ran.stderr.strip()[-500:]}", file=sys.stderr)


if __name__ == "__main__":
    install()
    if browser() is None:
        print(f"{ADVICE}; these tests will be skipped", file=sys.stderr)
