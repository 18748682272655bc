"""Looks up known vulnerabilities of the versions in ``constraints.txt``: ``python .ci/audit.py [further arguments of pip-audit]``.

Exits with 1 if there are any. Where the service with the advisories can't be reached, or knows none of the packages (a mirror), nothing was
audited: that is said in one line, and is no failure, as ``make lint`` works offline. Runs pip-audit, with one package first.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
MAX_S = 300.0
# Vulnerabilities that do not concern this project, each with the reason: {"PYSEC-2026-1": "it is in a part that is never called"}.
ACCEPTED: dict[str, str] = {}


class NothingAudited(Exception):
    """The service gave no answer, for the reason that it says."""


def main(arguments: Sequence[str], constraints: Path = CONSTRAINTS) -> int:
    """Audit and report; the exit code.

    Args:
        arguments: passed on to pip-audit, such as another service.
        constraints: pinned versions, one a line.
    """
    pins = [line for line in constraints.read_text(encoding="utf-8").splitlines() if re.match(r"[\w.-]+==", line)]
    try:
        _audit(pins[:1], arguments)
        packages = _audit(pins, arguments)
    except NothingAudited as reason:
        print(f"audit: nothing was audited, {reason}")
        return 0
    found = [(package, one) for package in packages for one in package.get("vulns", ()) if one["id"] not in ACCEPTED]
    for package, one in found:
        fixed = ", ".join(one["fix_versions"]) or "none yet"
        print(f"audit: {package['name']} {package['version']} has {one['id']} (fixed in {fixed}): {one['description'][:200]}")
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    unknown = f"; not known to the service: {', '.join(skipped)}" if skipped else ""
    print(f"audit: {len(packages) - len(skipped)} packages audited, {len(found)} known vulnerabilities{unknown}")
    return int(bool(found))


def _audit(pins: Sequence[str], arguments: Sequence[str]) -> list[dict[str, Any]]:
    """What pip-audit says of each package.

    Raises:
        NothingAudited: it says nothing.
    """
    with tempfile.TemporaryDirectory() as folder:
        pinned, report = Path(folder, "pins.txt"), Path(folder, "report.json")
        pinned.write_text("\n".join(pins) + "\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip_audit", "-r", str(pinned), "--no-deps", "--disable-pip", "--progress-spinner", "off"]
        try:
            ran = subprocess.run([*command, "-f", "json", "-o", str(report), *arguments], capture_output=True, text=True, timeout=MAX_S)
        except subprocess.TimeoutExpired:
            raise NothingAudited(f"as the service did not answer within {MAX_S:.0f} s") from None
        if not report.exists():
            said = re.findall(r"\w+(?:Error|Exception)\b.*|ERROR:.*", ran.stderr) or ran.stderr.splitlines() or ["it failed"]
            raise NothingAudited(f"as pip-audit says: {said[-1][:200]}")
        packages = json.loads(report.read_text(encoding="utf-8"))["dependencies"]
    if all("skip_reason" in package for package in packages):
        raise NothingAudited("as the service that was reached knows no advisories")
    return packages


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
