"""The steps by which the database of keys and usage got its tables, for Alembic."""
