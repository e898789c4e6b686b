"""Types of columns that several migrations use."""

from __future__ import annotations

import sqlalchemy as sa


def bytewise() -> sa.String:
    """Text in the order of its bytes, in every database; PostgreSQL would take the language's."""
    return sa.String().with_variant(sa.String(collation="C"), "postgresql")
