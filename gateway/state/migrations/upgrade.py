"""
Alembic migrations of the records, part of the package: no ``alembic.ini``, no command line.

A new one is a file ``versions/<number>_<what>.py`` whose ``revision`` is that number; ``HEAD`` follows it.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from gateway.state.ports import StateUnavailable

HEAD = "0004"
"""The newest revision. A database that stands here is opened without loading Alembic, which takes a while."""


def revision(connection: Connection) -> str | None:
    """The migration at which the schema stands; None: there is none yet."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    stored: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return stored


def upgrade(connection: Connection) -> None:
    """
    Bring the schema up to ``HEAD`` within the connection's transaction.

    The caller's transaction must keep all other writers out. Raises StateUnavailable for a database that a newer
    Greenroom has migrated further.
    """
    stored = revision(connection)
    if stored == HEAD:
        return
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    # A literal % would be read as the beginning of a variable.
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise StateUnavailable(
            f"The records stand at migration {stored}, which this Greenroom does not know (it knows {HEAD}): "
            "they were opened by a newer one. Use that, or a backup from before."
        ) from error
