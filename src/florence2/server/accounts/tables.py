"""The tables of keys and usage, as they are after the last migration. Times are seconds since 1970, days are those of UTC."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Date, Double, ForeignKey, Integer, MetaData, String, Table, Text

_NAMES = {"pk": "pk_%(table_name)s", **{kind: f"{kind}_%(table_name)s_%(column_0_name)s" for kind in ("ix", "fk", "uq")}}
metadata = MetaData(naming_convention=_NAMES)

keys = Table(
    "keys",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(100), nullable=False, unique=True),
    Column("roles", String(100), nullable=False),  # with commas
    Column("models", Text),  # a JSON list; none: all models
    Column("rate", String(50)),
    Column("max_slots", Integer),
    Column("monthly_quota", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
    Column("last_used_at", BigInteger),
)

secrets = Table(
    "key_secrets",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("key_id", Integer, ForeignKey("keys.id"), nullable=False, index=True),
    Column("prefix", String(20), nullable=False, unique=True),
    Column("digest", String(64), nullable=False),  # SHA-256 of the whole key
    Column("created_at", BigInteger, nullable=False),
    Column("ends_at", BigInteger),  # where another one has taken its place
)

revision = Table(
    "key_revision",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("number", BigInteger, nullable=False),  # grows with every change of the tables above, so that servers see changes cheaply
)

usage = Table(
    "usage",
    metadata,
    Column("key_name", String(100), primary_key=True),
    Column("model", String(300), primary_key=True),
    Column("day", Date, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("images", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("answer_tokens", BigInteger, nullable=False),
    Column("compute_s", Double, nullable=False),
)

usage_errors = Table(
    "usage_errors",
    metadata,
    Column("key_name", String(100), primary_key=True),
    Column("model", String(300), primary_key=True),
    Column("day", Date, primary_key=True),
    Column("code", String(100), primary_key=True),
    Column("errors", BigInteger, nullable=False),
)

usage_batches = Table(
    "usage_batches",
    metadata,
    Column("id", String(100), primary_key=True),  # of a part of a journal whose file may still be there
    Column("written_at", BigInteger, nullable=False),
)
