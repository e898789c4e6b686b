"""Run by Alembic for each upgrade; the connection, with its open transaction, comes from ``upgrade``."""

from __future__ import annotations

from alembic import context

from gateway.state.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite changes a column only by copying its table
    transactional_ddl=True,  # true of both databases; Alembic assumes the opposite of SQLite's driver
)
with context.begin_transaction():
    context.run_migrations()
