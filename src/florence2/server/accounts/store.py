"""The keys of a database: made, listed, revoked, rotated, and all at once for those who check them.

A key is 40 random letters and digits behind ``f2_``. Kept are its first characters, by which it is found, and its digest: whoever reads the
database can't use what is in it. All of it blocks. Knows nothing of requests.
"""

from __future__ import annotations

import json
import secrets as randomness
import string
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Connection, RowMapping, select, update

from florence2.errors import InvalidOption
from florence2.server.accounts.database import Database
from florence2.server.accounts.given_keys import digest
from florence2.server.accounts.key_info import ROLES, KeyInfo, Role
from florence2.server.accounts.key_names import check_name
from florence2.server.accounts.rates import check_rate
from florence2.server.accounts.tables import keys, revision, secrets

MARK = "f2_"
PREFIX_CHARS = len(MARK) + 8
SECRET_CHARS = 40
MAX_LIMIT = 2_000_000_000  # of every number of a key: what the tables can hold
_ALPHABET = string.ascii_letters + string.digits


@dataclass(frozen=True)
class StoredKey:
    """A key as it is listed; times are seconds since 1970.

    Attributes:
        info: its name, and what it may do.
        prefixes: the first characters of the keys that stand for it, the newest first; more than one while an old one still works.
        created_at: when it was made.
        expires_at: when it ends; None: never.
        revoked_at: when it was revoked; None: it was not.
        last_used_at: the time of its last metered request; None: there was none.
    """

    info: KeyInfo
    prefixes: tuple[str, ...]
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    last_used_at: int | None


@dataclass(frozen=True)
class Secret:
    """What a sent key is compared with.

    Attributes:
        digest: of the whole key.
        ends_at: until when it works, in seconds since 1970; None: no end.
        info: whose it is.
    """

    digest: bytes
    ends_at: int | None
    info: KeyInfo


class KeyStore:
    """The keys of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, info: KeyInfo, expires_at: int | None = None) -> str:
        """Make a key.

        Args:
            info: its name, and what it may do.
            expires_at: when it ends, in seconds since 1970; None: never.

        Returns:
            The key, which nobody can read again.

        Raises:
            InvalidOption: a name that is taken or can't be, no role, a rate or number that can't be.
        """
        _check(info)
        with self._database.writing() as connection:
            found = connection.execute(select(keys.c.revoked_at).where(keys.c.name == info.name)).first()
            if found is not None:
                state = "revoked; its usage keeps the name" if found.revoked_at else "in use; florence2 keys rotate gives it a new key"
                raise InvalidOption(f"there is a key named {info.name!r} already ({state}): take another name", field="name")
            values = {"name": info.name, "created_at": _now(), "expires_at": expires_at, **_columns(info)}
            key_id = connection.execute(keys.insert().values(values).returning(keys.c.id)).scalar_one()
            key = _add_secret(connection, key_id)
            _note_change(connection)
        return key

    def listed(self) -> list[StoredKey]:
        """All keys, in the order in which they were made, revoked ones among them."""
        with self._database.reading() as connection:
            prefixes: dict[int, list[str]] = {}
            now = _now()
            for row in connection.execute(select(secrets).order_by(secrets.c.id.desc())):
                if row.ends_at is None or row.ends_at > now:
                    prefixes.setdefault(row.key_id, []).append(row.prefix)
            rows = connection.execute(select(keys).order_by(keys.c.id)).mappings().all()
        times = ("created_at", "expires_at", "revoked_at", "last_used_at")
        return [StoredKey(_info(row), tuple(prefixes.get(row["id"], ())), **{name: row[name] for name in times}) for row in rows]

    def revoke(self, name: str) -> None:
        """End a key for good.

        Raises:
            InvalidOption: there is no such key.
        """
        with self._database.writing() as connection:
            _key_id(connection, name)
            change = update(keys).where(keys.c.name == name, keys.c.revoked_at.is_(None)).values(revoked_at=_now())
            connection.execute(change)
            _note_change(connection)

    def rotate(self, name: str, grace_s: int = 0) -> str:
        """A new key in place of the old one, with the same name, limits and usage.

        Args:
            name: its name.
            grace_s: how long the old key works on, in seconds.

        Raises:
            InvalidOption: there is no such key, or it is revoked or expired.
        """
        with self._database.writing() as connection:
            key_id = _key_id(connection, name, is_used=True)
            end = _now() + grace_s
            is_later = secrets.c.ends_at.is_(None) | (secrets.c.ends_at > end)
            connection.execute(update(secrets).where(secrets.c.key_id == key_id, is_later).values(ends_at=end))
            key = _add_secret(connection, key_id)
            _note_change(connection)
        return key

    def revision(self) -> int:
        """A number that grows with every change of keys."""
        with self._database.reading() as connection:
            return _revision(connection)

    def all_secrets(self) -> tuple[int, dict[str, Secret]]:
        """The revision, and what keys are compared with, by their first characters; none of revoked keys."""
        query = select(secrets.c.prefix, secrets.c.digest, secrets.c.ends_at, *keys.c).join(keys).where(keys.c.revoked_at.is_(None))
        found = {}
        with self._database.reading() as connection:
            number = _revision(connection)
            for row in connection.execute(query).mappings():
                ends = [end for end in (row["ends_at"], row["expires_at"]) if end is not None]
                found[row["prefix"]] = Secret(bytes.fromhex(row["digest"]), min(ends, default=None), _info(row))
        return number, found


def _check(info: KeyInfo) -> None:
    """Refuse what can't be a key."""
    check_name(info.name)
    if not info.roles or not info.roles <= set(ROLES):
        raise InvalidOption(f"a key has one of the roles {', '.join(ROLES)}, or several", field="role")
    if info.rate is not None:
        check_rate(info.rate)
    for name, value in (("concurrency", info.max_slots), ("quota", info.monthly_quota)):
        if value is not None and not 1 <= value <= MAX_LIMIT:
            raise InvalidOption(f"--{name} must be 1 to {MAX_LIMIT:,}, got {value}; leave it out for no limit", field=name)


def _columns(info: KeyInfo) -> dict[str, Any]:
    return {
        "roles": ",".join(role for role in ROLES if role in info.roles),
        "models": None if info.models is None else json.dumps(sorted(info.models)),
        "rate": info.rate,
        "max_slots": info.max_slots,
        "monthly_quota": info.monthly_quota,
    }


def _info(row: RowMapping) -> KeyInfo:
    roles = cast(Sequence[Role], row["roles"].split(","))
    models = None if row["models"] is None else frozenset(json.loads(row["models"]))
    return KeyInfo(row["name"], frozenset(roles), models, row["max_slots"], row["rate"], row["monthly_quota"])


def _key_id(connection: Connection, name: str, *, is_used: bool = False) -> int:
    """The id of a key that is there and, where that matters, neither revoked nor expired."""
    row = connection.execute(select(keys.c.id, keys.c.revoked_at, keys.c.expires_at).where(keys.c.name == name)).first()
    if row is None:
        raise InvalidOption(f"there is no key named {name!r}; florence2 keys list shows all", field="name")
    if is_used and row.revoked_at is not None:
        raise InvalidOption(f"the key {name!r} is revoked, and can't be rotated; make one with another name", field="name")
    if is_used and row.expires_at is not None and row.expires_at <= _now():
        raise InvalidOption(f"the key {name!r} has expired, and a new one would have as well; make one with another name", field="name")
    return row.id


def _add_secret(connection: Connection, key_id: int) -> str:
    """Make a key, and keep what recognizes it."""
    key = _random_key()
    while connection.execute(select(secrets.c.id).where(secrets.c.prefix == key[:PREFIX_CHARS])).first():  # of 62⁸ beginnings
        key = _random_key()
    prefix = key[:PREFIX_CHARS]
    connection.execute(secrets.insert().values(key_id=key_id, prefix=prefix, digest=digest(key).hex(), created_at=_now()))
    return key


def _random_key() -> str:
    return MARK + "".join(randomness.choice(_ALPHABET) for _ in range(SECRET_CHARS))


def _revision(connection: Connection) -> int:
    return connection.execute(select(revision.c.number)).scalar_one()


def _note_change(connection: Connection) -> None:
    connection.execute(update(revision).values(number=revision.c.number + 1))


def _now() -> int:
    return int(time.time())
