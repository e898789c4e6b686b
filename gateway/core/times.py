"""No I/O: times as the API writes them, UTC ISO 8601 with milliseconds and ``Z``."""

from __future__ import annotations

from datetime import UTC, datetime


def iso(at: datetime) -> str:
    """E.g. ``2026-01-02T03:04:05.678Z``; *at* must be aware."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def iso_or_none(at: datetime | None) -> str | None:
    """The same, and None stays None."""
    return iso(at) if at is not None else None


def parse_iso(text: str) -> datetime:
    """The time that *text* says; one without an offset is taken as UTC. Raises ValueError."""
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)
