"""Times as the API writes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.times import iso, iso_or_none, parse_iso

zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(datetime(1000, 1, 2), datetime(9999, 12, 30), timezones=zones)  # noqa: DTZ001 - made aware


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        pytest.param(datetime(2026, 1, 2, 3, 4, 5, 678000, UTC), "2026-01-02T03:04:05.678Z", id="milliseconds"),
        pytest.param(datetime(2026, 1, 2, 3, 4, 5, 0, UTC), "2026-01-02T03:04:05.000Z", id="also where they are zero"),
        pytest.param(datetime(2026, 1, 2, 3, 4, 5, 999_999, UTC), "2026-01-02T03:04:05.999Z", id="cut, not rounded"),
        pytest.param(
            datetime(2026, 1, 2, 1, 0, tzinfo=timezone(timedelta(hours=2))), "2026-01-01T23:00:00.000Z", id="in UTC"
        ),
    ],
)
def test_iso(at: datetime, expected: str) -> None:
    """UTC with three digits of milliseconds and Z."""
    assert iso(at) == expected


def test_none_stays_none() -> None:
    """A time that is not known is null in the API."""
    assert iso_or_none(None) is None
    assert iso_or_none(datetime(2026, 1, 2, tzinfo=UTC)) == "2026-01-02T00:00:00.000Z"


@given(moments)
def test_what_is_written_can_be_read(at: datetime) -> None:
    """To the millisecond; and it always looks alike, so texts sort as times do."""
    text = iso(at)
    assert len(text) == 24
    read = parse_iso(text)
    assert read == at - timedelta(microseconds=at.microsecond % 1000)
    assert read.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), id="Z"),
        pytest.param("2026-01-02T03:04:05", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), id="no offset is UTC"),
        pytest.param("2026-01-02T03:04:05+02:00", datetime(2026, 1, 2, 1, 4, 5, tzinfo=UTC), id="another offset"),
        pytest.param("2026-01-02", datetime(2026, 1, 2, tzinfo=UTC), id="a day is its midnight"),
    ],
)
def test_parse_iso(text: str, expected: datetime) -> None:
    """Every result is aware."""
    assert parse_iso(text) == expected
    assert parse_iso(text).tzinfo is not None


@given(st.text() | st.text("0123456789-:TZ+. ", max_size=30))
def test_nonsense_is_a_value_error(text: str) -> None:
    """No text raises anything but ValueError."""
    try:
        read = parse_iso(text)
    except ValueError:
        return
    assert read.tzinfo is not None
