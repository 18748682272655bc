"""What ``make check`` runs for a change: the tests that import it, and those of its room."""

from __future__ import annotations

from pathlib import Path

from tests.changed import touched


def names(*changed: str) -> set[str]:
    return {str(path) for path in touched([Path(name) for name in changed])}


def test_a_module_is_tested_by_its_room_and_by_whoever_imports_it() -> None:
    found = names("src/florence2/tasks/coordinates.py")
    assert {"tests/tasks/test_coordinates.py", "tests/tasks/test_prompt.py", "tests/parity/test_parsing.py"} <= found
    assert not any(name.startswith("tests/server") for name in found)


def test_a_module_in_no_room_has_a_test_of_its_name() -> None:
    assert "tests/test_cores.py" in names("src/florence2/cores.py")
    assert not any(name.startswith("tests/draw") for name in names("src/florence2/cores.py"))


def test_a_helper_of_tests_touches_those_that_reach_it() -> None:
    assert {"tests/weights/test_hub.py", "tests/test_downloads.py"} <= names("tests/hub.py")


def test_pages_and_settings_of_the_project() -> None:
    assert "tests/docs/test_links.py" in names("docs/python.md")
    assert names("Makefile") == {"tests/test_setup.py"}
    assert names("CHANGELOG.md") == set()
