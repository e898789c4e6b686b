"""What storages hold; of runs, their input's key, their declared storages, who started them, the wish to restart."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from gateway.state.migrations.types import bytewise

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("runs", sa.Column("restart_wish", sa.JSON()))
    op.add_column("runs", sa.Column("input_key", sa.String(), nullable=False, server_default="INPUT"))
    op.add_column("runs", sa.Column("storage_ids", sa.JSON(), nullable=False, server_default="{}"))
    op.add_column("runs", sa.Column("parent_run_id", sa.String()))
    _change_storages()
    _add_contents()


def _change_storages() -> None:
    op.add_column("storages", sa.Column("name_key", sa.String()))
    # Before this migration only the default storages of runs were made, which have no names; but let none get lost.
    op.execute("UPDATE storages SET name_key = lower(name)")
    # Nothing refers to storages yet, so that SQLite may copy the table: dropping it deletes nothing elsewhere.
    with op.batch_alter_table("storages") as storages:
        storages.add_column(sa.Column("title", sa.String()))
        storages.add_column(
            sa.Column("general_access", sa.String(), nullable=False, server_default="FOLLOW_USER_SETTING")
        )
        storages.drop_constraint("uq_storages_user_id_kind_name", type_="unique")
        storages.create_unique_constraint("uq_storages_user_id_kind_name_key", ["user_id", "kind", "name_key"])


def _add_contents() -> None:
    op.create_table(
        "key_value_records",
        sa.Column("store_id", sa.String(), nullable=False),
        sa.Column("key", bytewise(), nullable=False),
        sa.Column("content_type", sa.String(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("modified_at", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.LargeBinary()),
        sa.Column("blob", sa.String()),
        *_of_storage("key_value_records", "store_id"),
        sa.PrimaryKeyConstraint("store_id", "key", name="pk_key_value_records"),
    )
    op.create_table(
        "dataset_items",
        sa.Column("dataset_id", sa.String(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("item", sa.Text(), nullable=False),
        *_of_storage("dataset_items", "dataset_id"),
        sa.PrimaryKeyConstraint("dataset_id", "position", name="pk_dataset_items"),
    )
    op.create_table(
        "dataset_pushes",
        sa.Column("id", bytewise(), nullable=False),
        sa.Column("dataset_id", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("process", sa.String(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        *_of_storage("dataset_pushes", "dataset_id"),
        sa.PrimaryKeyConstraint("id", name="pk_dataset_pushes"),
    )
    op.create_index("ix_dataset_pushes_dataset_id_digest", "dataset_pushes", ["dataset_id", "digest"])
    op.create_table(
        "queue_requests",
        sa.Column("queue_id", sa.String(), nullable=False),
        sa.Column("id", bytewise(), nullable=False),
        sa.Column("unique_key", sa.String(), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("handled_at", sa.BigInteger()),
        sa.Column("lock_expires_at", sa.BigInteger()),
        sa.Column("lock_owner", sa.String()),
        sa.Column("order_no", sa.BigInteger()),
        sa.Column("added_no", sa.BigInteger(), nullable=False),
        *_of_storage("queue_requests", "queue_id"),
        sa.PrimaryKeyConstraint("queue_id", "id", name="pk_queue_requests"),
    )
    op.create_index("ix_queue_requests_queue_id_added_no", "queue_requests", ["queue_id", "added_no"], unique=True)
    for name, column in (("pending", "order_no"), ("locked", "lock_expires_at")):
        is_set = sa.text(f"{column} IS NOT NULL")
        op.create_index(
            f"ix_queue_requests_{name}",
            "queue_requests",
            ["queue_id", column],
            sqlite_where=is_set,
            postgresql_where=is_set,
        )


def _of_storage(table: str, column: str) -> list[sa.ForeignKeyConstraint]:
    """The rows go when their storage goes."""
    name = f"fk_{table}_{column}_storages"
    return [sa.ForeignKeyConstraint([column], ["storages.id"], name=name, ondelete="CASCADE")]
