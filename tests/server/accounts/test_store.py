"""Keys in a database: SQLite and a real PostgreSQL."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text

from florence2.errors import InvalidOption
from florence2.server.accounts.database import Database
from florence2.server.accounts.given_keys import digest
from florence2.server.accounts.key_info import KeyInfo
from florence2.server.accounts.store import PREFIX_CHARS, KeyStore
from florence2.server.accounts.tables import metadata
from florence2.server.errors import KeysUnavailable

Open = Callable[[str], Database]
FULL = KeyInfo("team-a", frozenset({"infer", "manage"}), frozenset({"b", "a"}), 8, "60/minute", 10_000)


@pytest.fixture
def opened(request: pytest.FixtureRequest) -> Callable[[str], Database]:
    """Opens databases, which are closed at the end."""

    def open_one(url: str) -> Database:
        database = Database(url)
        request.addfinalizer(database.close)
        database.open()
        return database

    return open_one


def test_a_key_from_its_making_to_its_end(opened: Open, url: str) -> None:
    store = KeyStore(opened(url))
    key = store.create(FULL, expires_at=int(time.time()) + 100)
    number, secrets = store.all_secrets()
    (secret,) = secrets.values()
    assert (secret.info, secret.digest, list(secrets)) == (FULL, digest(key), [key[:PREFIX_CHARS]])
    new = store.rotate("team-a", grace_s=50)
    assert store.revision() > number
    ends = {prefix: one.ends_at for prefix, one in store.all_secrets()[1].items()}
    assert ends[key[:PREFIX_CHARS]] == pytest.approx(time.time() + 50, abs=3)
    assert ends[new[:PREFIX_CHARS]] == pytest.approx(time.time() + 100, abs=3)
    (listed,) = store.listed()
    assert listed.prefixes == (new[:PREFIX_CHARS], key[:PREFIX_CHARS])
    store.rotate("team-a")
    assert [one.ends_at is not None and one.ends_at <= time.time() for one in store.all_secrets()[1].values()].count(True) == 2
    store.revoke("team-a")
    assert store.all_secrets()[1] == {}
    assert store.listed()[0].revoked_at is not None
    with pytest.raises(InvalidOption, match="revoked, and can't be rotated"):
        store.rotate("team-a")
    store.create(KeyInfo("short", FULL.roles), expires_at=int(time.time()))
    with pytest.raises(InvalidOption, match="has expired"):
        store.rotate("short")


def test_the_database_holds_no_key(opened: Open, url: str) -> None:
    database = opened(url)
    key = KeyStore(database).create(FULL)
    with database.reading() as connection:
        content = "".join(str(row) for table in metadata.sorted_tables for row in connection.execute(table.select()))
    assert key[:PREFIX_CHARS] in content
    assert key[PREFIX_CHARS:] not in content


def test_mistakes(opened: Open, url: str) -> None:
    store = KeyStore(opened(url))
    store.create(FULL)
    for wrong, message in (
        (FULL, "already"),
        (KeyInfo("key-1", FULL.roles), "settings"),
        (KeyInfo("all", FULL.roles), "all keys"),
        (KeyInfo("a b", FULL.roles), "letters"),
        (KeyInfo("x", frozenset()), "roles"),
        (KeyInfo("x", frozenset({"root"})), "roles"),  # type: ignore[arg-type]
        (KeyInfo("x", FULL.roles, rate="often"), "60/minute"),
        (KeyInfo("x", FULL.roles, rate="5/second; 10/minute"), "one number"),
        (KeyInfo("x", FULL.roles, rate="9" * 60 + "/minute"), "60/minute"),
        (KeyInfo("x", FULL.roles, rate="5/99999999999999years"), "60/minute"),
        (KeyInfo("x", FULL.roles, max_slots=0), "must be 1 to"),
        (KeyInfo("x", FULL.roles, max_slots=3_000_000_000), "must be 1 to"),
        (KeyInfo("x", FULL.roles, monthly_quota=-1), "must be 1 to"),
        (KeyInfo("x", FULL.roles, monthly_quota=10**30), "must be 1 to"),
    ):
        with pytest.raises(InvalidOption, match=message):
            store.create(wrong)
    for call in (store.revoke, store.rotate):
        with pytest.raises(InvalidOption, match="no key named"):
            call("nobody")
    assert [one.info.name for one in store.listed()] == ["team-a"]


def test_migrations_make_the_tables_that_the_program_knows(opened: Open, url: str) -> None:
    database = opened(url)
    with database.writing() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    opened(url)  # again, with nothing to do


def test_a_newer_schema_is_refused(opened: Open, url: str) -> None:
    with opened(url).writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(InvalidOption, match=r"9999.*newer florence2"):
        opened(url)


def test_servers_that_start_at_once_migrate_once(opened: Open, url: str) -> None:
    failures: list[BaseException] = []

    def start() -> None:
        try:
            KeyStore(opened(url)).listed()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_database_that_is_not_there_is_named_without_its_password(opened: Open, tmp_path: Path) -> None:
    with pytest.raises(KeysUnavailable, match=r"127.0.0.1:1/x does not answer: ") as caught:
        opened("postgresql://me:secret@127.0.0.1:1/x")
    assert "secret" not in caught.value.message
    assert Database("postgresql://db/x?user=me&password=secret").name == "postgresql://db/x"
    for url in ("mysql://x/y", "sqlite://", "sqlite:///:memory:", "nonsense", "postgresql://me:secret@host:port/x"):
        with pytest.raises(InvalidOption, match="sqlite:////"):
            Database(url)
    (tmp_path / "file").touch()
    with pytest.raises(InvalidOption, match="can't be opened"):
        opened(f"sqlite:///{tmp_path}/file/keys.sqlite")


def test_the_file_is_for_its_owner_alone(opened: Open, tmp_path: Path) -> None:
    opened(f"sqlite:///{tmp_path}/new/keys.sqlite")
    assert (tmp_path / "new" / "keys.sqlite").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_the_server_needs_no_package_of_keys_without_a_database() -> None:
    program = """
import sys
for name in ("sqlalchemy", "alembic", "limits"): sys.modules[name] = None
from florence2.server.app import create_app
from florence2.server.settings import Settings
create_app(Settings())
try:
    create_app(Settings(database="sqlite:////tmp/never.sqlite"))
except Exception as error:
    print(type(error).__name__, error)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "MissingExtra the setting database needs the extra 'keys'" in ran.stdout
    assert "florence2-engine[keys]" in ran.stdout
