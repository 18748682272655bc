"""Keys, their secrets, usage and errors by day."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    _make_keys()
    op.create_table(
        "usage",
        *(sa.Column("key_name", sa.String(100)), sa.Column("model", sa.String(300)), sa.Column("day", sa.Date())),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("requests", "images", "prompt_tokens", "answer_tokens")),
        sa.Column("compute_s", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("key_name", "model", "day", name="pk_usage"),
    )
    op.create_table(
        "usage_errors",
        *(sa.Column("key_name", sa.String(100)), sa.Column("model", sa.String(300)), sa.Column("day", sa.Date())),
        sa.Column("code", sa.String(100)),
        sa.Column("errors", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key_name", "model", "day", "code", name="pk_usage_errors"),
    )
    op.create_table(
        "usage_batches",
        sa.Column("id", sa.String(100)),
        sa.Column("written_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_usage_batches"),
    )


def _make_keys() -> None:
    op.create_table(
        "keys",
        sa.Column("id", sa.Integer()),
        *(sa.Column("name", sa.String(100), nullable=False), sa.Column("roles", sa.String(100), nullable=False)),
        *(sa.Column("models", sa.Text()), sa.Column("rate", sa.String(50))),
        *(sa.Column("max_slots", sa.Integer()), sa.Column("monthly_quota", sa.BigInteger())),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        *(sa.Column(name, sa.BigInteger()) for name in ("expires_at", "revoked_at", "last_used_at")),
        sa.PrimaryKeyConstraint("id", name="pk_keys"),
        sa.UniqueConstraint("name", name="uq_keys_name"),
    )
    op.create_table(
        "key_secrets",
        *(sa.Column("id", sa.Integer()), sa.Column("key_id", sa.Integer(), nullable=False)),
        *(sa.Column("prefix", sa.String(20), nullable=False), sa.Column("digest", sa.String(64), nullable=False)),
        *(sa.Column("created_at", sa.BigInteger(), nullable=False), sa.Column("ends_at", sa.BigInteger())),
        sa.PrimaryKeyConstraint("id", name="pk_key_secrets"),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"], name="fk_key_secrets_key_id"),
        sa.UniqueConstraint("prefix", name="uq_key_secrets_prefix"),
    )
    op.create_index("ix_key_secrets_key_id", "key_secrets", ["key_id"])
    revisions = op.create_table(
        "key_revision",
        *(sa.Column("id", sa.Integer()), sa.Column("number", sa.BigInteger(), nullable=False)),
        sa.PrimaryKeyConstraint("id", name="pk_key_revision"),
    )
    op.bulk_insert(revisions, [{"id": 1, "number": 0}])
