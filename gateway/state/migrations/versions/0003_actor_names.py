"""Further names of Actors: aliases and custom domains."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from gateway.state.migrations.types import bytewise

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "actor_names",
        sa.Column("id", bytewise(), nullable=False),
        sa.Column("actor_id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("challenge", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("verified_at", sa.BigInteger()),
        sa.ForeignKeyConstraint(["actor_id"], ["actors.id"], name="fk_actor_names_actor_id_actors", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_actor_names_user_id_users"),
        sa.PrimaryKeyConstraint("id", name="pk_actor_names"),
        sa.UniqueConstraint("actor_id", "name", name="uq_actor_names_actor_id_name"),
    )
    op.create_index("ix_actor_names_name", "actor_names", ["name"])
    is_verified = sa.text("verified_at IS NOT NULL")
    op.create_index(
        "uq_actor_names_verified",
        "actor_names",
        ["name"],
        unique=True,
        sqlite_where=is_verified,
        postgresql_where=is_verified,
    )
