"""The database of keys and usage: SQLite in a file, or PostgreSQL. All of it blocks, so it runs in threads.

In: a URL as SQLAlchemy writes them. Out: transactions, and at ``open`` the tables as this program knows them. Knows nothing of what they
hold.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from florence2.errors import InvalidOption
from florence2.extras import requires
from florence2.file_locks import held
from florence2.server.errors import KeysUnavailable

logging.getLogger("alembic").setLevel(logging.WARNING)

CONNECT_S = 3
STATEMENT_S = 5  # longest time for a statement, and for the lock that it waits for
MIGRATION_LOCK = 0x666C6F72_32  # one number for all servers on one PostgreSQL
MIGRATIONS = Path(__file__).with_name("migrations")
_WRITES = "florence2_writes"


class Database:
    """A database, not reached before it is opened; a context manager that opens and closes it.

    Raises:
        InvalidOption: no URL of a database that can be used.
        MissingExtra: the driver is not installed.
    """

    def __init__(self, url: str) -> None:
        self._url = _parsed(url)
        self.is_sqlite = self._url.get_backend_name() == "sqlite"
        with requires("keys" if self.is_sqlite else "postgresql", f"a database of {self._url.get_backend_name()}"):
            self._engine = create_engine(self._url, **({} if self.is_sqlite else _postgresql_options()))
        if self.is_sqlite:
            event.listen(self._engine, "connect", _set_up_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)

    @property
    def path(self) -> Path | None:
        """The file of SQLite; None: it is a PostgreSQL."""
        return Path(self._url.database or "") if self.is_sqlite else None

    @property
    def name(self) -> str:
        """The URL without what is secret in it, for messages to whoever runs the server."""
        shown = self._url.set(drivername=self._url.get_backend_name(), query={})  # a query may hold a password as well
        return shown.render_as_string(hide_password=True)

    @property
    def is_there(self) -> bool:
        """Whether there is a file of SQLite already; a PostgreSQL is always said to be there."""
        return self.path is None or self.path.exists()

    def open(self) -> None:
        """Make the file of SQLite where there is none, and bring the tables to the state that this program knows.

        Of several processes that do so at once, one migrates and the others wait.

        Raises:
            KeysUnavailable: it can't be reached.
            InvalidOption: a newer program has changed its tables.
        """
        if self.is_sqlite:
            self._make_file()
        try:
            with self._migration_lock(), self.writing() as connection:
                if not self.is_sqlite:
                    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")
                self._migrate(connection)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Database:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that only reads.

        Raises:
            KeysUnavailable: the database does not answer.
        """
        with self._transaction(writes=False) as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction, committed at the end of the block.

        Raises:
            KeysUnavailable: the database does not answer.
        """
        with self._transaction(writes=True) as connection:
            yield connection

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self, *, writes: bool) -> Iterator[Connection]:
        try:
            with self._engine.connect().execution_options(**{_WRITES: writes}) as connection, connection.begin():
                if not self.is_sqlite:  # for this transaction alone: a pooler in between may hand the connection to others
                    connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{STATEMENT_S}s'")
                yield connection
        except (DBAPIError, SQLAlchemyError) as error:
            reason = str(getattr(error, "orig", None) or error).strip().split("\n")[0]
            raise KeysUnavailable(f"the database {self.name} does not answer: {reason}") from error

    def _make_file(self) -> None:
        """The file, for its owner alone. SQLite gives the files beside it the same permissions."""
        assert self.path is not None
        path = self.path
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            raise InvalidOption(f"the database {str(path)!r} can't be opened: {error.strerror}", field="database") from None

    def _migration_lock(self) -> AbstractContextManager[None]:
        return held(Path(f"{self._url.database}.lock"), is_waited_for=True) if self.is_sqlite else nullcontext()

    def _migrate(self, connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        config.attributes["connection"] = connection
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        found = MigrationContext.configure(connection).get_current_revision()
        if found is not None and found not in known:
            raise InvalidOption(
                f"the tables of {self.name} are of version {found}, and this program knows up to {max(known)}: a newer florence2 has "
                "changed them; update this one, or name another database",
                field="database",
            )
        if found != max(known):
            command.upgrade(config, "head")


def _parsed(given: str) -> URL:
    """The URL with the driver that this program uses."""
    try:
        url = make_url(given)
    except (ArgumentError, ValueError):  # such as a port that is no number
        url = None
    backend = None if url is None else "postgresql" if url.drivername == "postgres" else url.get_backend_name()
    if url is None or backend not in ("sqlite", "postgresql"):
        raise InvalidOption(
            "a database is sqlite:////path/of/a/file.sqlite or postgresql://user:password@host/name"
            + ("" if url is None else f", got one of {url.drivername}"),
            field="database",
        )
    if backend == "sqlite":
        if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
            raise InvalidOption("a database of SQLite is a file: sqlite:////path/of/a/file.sqlite", field="database")
        return url.set(drivername="sqlite+pysqlite", database=os.path.abspath(os.path.expanduser(url.database)))
    return url.set(drivername="postgresql+psycopg")


def _postgresql_options() -> dict[str, Any]:
    """For ``create_engine``: nobody waits long for a database that is gone, and a pooler in between is no trouble."""
    alive = {"keepalives_idle": 10, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 1000 * STATEMENT_S}
    options = {"connect_timeout": CONNECT_S, "application_name": "florence2", "prepare_threshold": None, **alive}
    return {"pool_pre_ping": True, "pool_timeout": CONNECT_S, "connect_args": options}


def _set_up_sqlite(connection: Any, _: Any) -> None:
    """Several processes share the file: readers see the state before a writer's commit, and writers wait for each other."""
    connection.isolation_level = None  # transactions are begun below
    for line in (f"PRAGMA busy_timeout = {1000 * STATEMENT_S}", "PRAGMA journal_mode = WAL", "PRAGMA foreign_keys = ON"):
        connection.execute(line)


def _begin_sqlite(connection: Connection) -> None:
    """A transaction that writes takes the lock at its beginning: one that asks for it later can lose against another."""
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get(_WRITES) else "BEGIN")
