"""What Alembic runs: the migrations, on the connection that it was handed. Knows nothing of when."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
