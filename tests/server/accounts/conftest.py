"""Databases and Redis for the tests of accounts: each test of ``url`` runs with SQLite and with a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.accounts.install import ADVICE
from tests.server.accounts.services import PostgreSQL, Redis, running_postgresql, running_redis


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    with running_postgresql() as server:
        if server is None:
            pytest.skip(f"no PostgreSQL is found, {ADVICE}")
        yield server


@pytest.fixture(scope="session")
def redis() -> Iterator[Redis]:
    with running_redis() as server:
        if server is None:
            pytest.skip(f"no Redis is found, {ADVICE}")
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/accounts.sqlite"
    return request.getfixturevalue("postgresql").new_database()


@pytest.fixture(autouse=True)
def own_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of this user's data is read or written."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("FLORENCE2_DATABASE", raising=False)
