"""What storages hold; of runs, their input's key, their declared storages, who started them, the wish to restart."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("runs", sa.Column("restart_wish", sa.JSON()))
    op.add_column("runs", sa.Column("input_key", sa.String(), nullable=False, server_default="INPUT"))
    op.add_column("runs", sa.Column("storage_ids", sa.JSON(), nullable=False, server_default="{}"))
    op.add_column("runs", sa.Column("parent_run_id", sa.String()))
    op.add_column("storages", sa.Column("title", sa.String()))
    op.add_column(
        "storages",
        sa.Column("general_access", sa.String(), nullable=False, server_default="FOLLOW_USER_SETTING"),
    )
