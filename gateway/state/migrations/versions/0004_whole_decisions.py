"""Decisions of the autoscaler are kept whole, beside what they were made of."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("decisions", sa.Column("decision", sa.JSON(), nullable=False, server_default="{}"))
