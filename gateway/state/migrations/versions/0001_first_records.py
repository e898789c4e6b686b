"""The first records: users, tokens, Actors with versions, builds and tasks, runs, storages, decisions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from gateway.state.migrations.types import bytewise

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "users",
        sa.Column("id", bytewise(), nullable=False),
        sa.Column("username", sa.String(), nullable=False),
        sa.Column("username_key", sa.String(), nullable=False),
        sa.Column("is_admin", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("username_key", name="uq_users_username_key"),
    )

    op.create_table(
        "actors",
        sa.Column("id", bytewise(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("name_key", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("modified_at", sa.BigInteger(), nullable=False),
        sa.Column("title", sa.String()),
        sa.Column("description", sa.String()),
        sa.Column("is_public", sa.Boolean(), nullable=False),
        sa.Column("default_run_options", sa.JSON(), nullable=False),
        sa.Column("standby_from_api", sa.JSON()),
        sa.Column("standby_from_file", sa.JSON()),
        sa.Column("tagged_builds", sa.JSON(), nullable=False),
        sa.Column("extra", sa.JSON(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_actors_user_id_users"),
        sa.PrimaryKeyConstraint("id", name="pk_actors"),
        sa.UniqueConstraint("user_id", "name_key", name="uq_actors_user_id_name_key"),
    )

    op.create_table(
        "actor_versions",
        sa.Column("actor_id", sa.String(), nullable=False),
        sa.Column("version_number", sa.String(), nullable=False),
        sa.Column("source_type", sa.String(), nullable=False),
        sa.Column("source", sa.JSON(), nullable=False),
        sa.Column("env_vars", sa.JSON(), nullable=False),
        sa.Column("apply_env_vars_to_build", sa.Boolean(), nullable=False),
        sa.Column("build_tag", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["actor_id"], ["actors.id"], name="fk_actor_versions_actor_id_actors", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("actor_id", "version_number", name="pk_actor_versions"),
    )

    op.create_table(
        "build_counters",
        sa.Column("actor_id", sa.String(), nullable=False),
        sa.Column("version_number", sa.String(), nullable=False),
        sa.Column("last_number", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["actor_id"], ["actors.id"], name="fk_build_counters_actor_id_actors", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("actor_id", "version_number", name="pk_build_counters"),
    )

    op.create_table(
        "builds",
        sa.Column("id", bytewise(), nullable=False),
        sa.Column("actor_id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("version_number", sa.String(), nullable=False),
        sa.Column("build_number", sa.String(), nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("origin", sa.String(length=32), nullable=False),
        sa.Column("tag", sa.String()),
        sa.Column("finished_at", sa.BigInteger()),
        sa.Column("status_message", sa.String()),
        sa.Column("snapshot", sa.String()),
        sa.Column("definition", sa.JSON(), nullable=False),
        sa.Column("env_vars", sa.JSON(), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("meta", sa.JSON(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["actor_id"], ["actors.id"], name="fk_builds_actor_id_actors", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_builds_user_id_users"),
        sa.PrimaryKeyConstraint("id", name="pk_builds"),
        sa.UniqueConstraint("actor_id", "build_number", name="uq_builds_actor_id_build_number"),
    )
    op.create_index("ix_builds_actor_id_started_at", "builds", ["actor_id", "started_at"])
    op.create_index("ix_builds_status", "builds", ["status"])
    op.create_index("ix_builds_user_id_started_at", "builds", ["user_id", "started_at"])

    op.create_table(
        "actor_tasks",
        sa.Column("id", bytewise(), nullable=False),
        sa.Column("actor_id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("name_key", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("modified_at", sa.BigInteger(), nullable=False),
        sa.Column("title", sa.String()),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("input", sa.JSON()),
        sa.Column("standby_from_api", sa.JSON()),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["actor_id"], ["actors.id"], name="fk_actor_tasks_actor_id_actors", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_actor_tasks_user_id_users"),
        sa.PrimaryKeyConstraint("id", name="pk_actor_tasks"),
        sa.UniqueConstraint("user_id", "name_key", name="uq_actor_tasks_user_id_name_key"),
    )
    op.create_index("ix_actor_tasks_actor_id", "actor_tasks", ["actor_id"])

    op.create_table(
        "runs",
        sa.Column("id", bytewise(), nullable=False),
        sa.Column("actor_id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("build_id", sa.String(), nullable=False),
        sa.Column("build_number", sa.String(), nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("origin", sa.String(length=32), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("live_view_label", sa.String(), nullable=False),
        sa.Column("default_key_value_store_id", sa.String(), nullable=False),
        sa.Column("default_dataset_id", sa.String(), nullable=False),
        sa.Column("default_request_queue_id", sa.String(), nullable=False),
        sa.Column("task_id", sa.String()),
        sa.Column("finished_at", sa.BigInteger()),
        sa.Column("status_message", sa.String()),
        sa.Column("is_status_message_terminal", sa.Boolean(), nullable=False),
        sa.Column("exit_code", sa.Integer()),
        sa.Column("meta", sa.JSON(), nullable=False),
        sa.Column("stats", sa.JSON(), nullable=False),
        sa.Column("pool_id", sa.String()),
        sa.Column("is_container_server_ready", sa.Boolean(), nullable=False),
        sa.Column("abort_wish", sa.JSON()),
        sa.Column("wound_down_because", sa.String()),
        sa.Column("general_access", sa.String(), nullable=False),
        sa.Column("placement", sa.JSON(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_runs_user_id_users"),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
        sa.UniqueConstraint("live_view_label", name="uq_runs_live_view_label"),
    )
    op.create_index("ix_runs_actor_id_started_at", "runs", ["actor_id", "started_at"])
    op.create_index("ix_runs_status", "runs", ["status"])
    op.create_index("ix_runs_user_id_started_at", "runs", ["user_id", "started_at"])

    op.create_table(
        "tokens",
        sa.Column("id", bytewise(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("token_hash", sa.String(), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger()),
        sa.Column("run_id", sa.String()),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_tokens_run_id_runs", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_tokens_user_id_users"),
        sa.PrimaryKeyConstraint("id", name="pk_tokens"),
        sa.UniqueConstraint("token_hash", name="uq_tokens_token_hash"),
    )
    op.create_index("ix_tokens_run_id", "tokens", ["run_id"])
    op.create_index("ix_tokens_user_id", "tokens", ["user_id"])

    op.create_table(
        "storages",
        sa.Column("id", bytewise(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("modified_at", sa.BigInteger(), nullable=False),
        sa.Column("accessed_at", sa.BigInteger(), nullable=False),
        sa.Column("name", sa.String()),
        sa.Column("actor_id", sa.String()),
        sa.Column("run_id", sa.String()),
        sa.Column("stats", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_storages_user_id_users"),
        sa.PrimaryKeyConstraint("id", name="pk_storages"),
        sa.UniqueConstraint("user_id", "kind", "name", name="uq_storages_user_id_kind_name"),
    )
    op.create_index("ix_storages_run_id", "storages", ["run_id"])

    op.create_table(
        "decisions",
        sa.Column("id", bytewise(), nullable=False),
        sa.Column("pool_id", sa.String(), nullable=False),
        sa.Column("actor_id", sa.String(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("wanted_runs", sa.Integer(), nullable=False),
        sa.Column("present_runs", sa.Integer(), nullable=False),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.Column("inputs", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_decisions"),
    )
    op.create_index("ix_decisions_actor_id", "decisions", ["actor_id"])
    op.create_index("ix_decisions_pool_id_at", "decisions", ["pool_id", "at"])
