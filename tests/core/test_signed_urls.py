"""Signatures in addresses: those of the official client are ours, and no others are believed."""

from __future__ import annotations

import base64
from datetime import timedelta

import pytest
from apify_client._utils import crypto
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.signed_urls import (
    is_record_signature,
    is_storage_signature,
    record_signature,
    storage_signature,
)

NOW_MS = 1_800_000_000_000
TEXTS = st.text(min_size=1)


def test_worked_example() -> None:
    """The example of the reference, on which both clients agree."""
    assert record_signature("sk123", "txt") == "6xVSRPCd0TqthCzaWL65"
    assert is_record_signature("6xVSRPCd0TqthCzaWL65", "sk123", "txt")


@given(secret=TEXTS, key=TEXTS)
def test_records_as_the_client_signs_them(secret: str, key: str) -> None:
    """Every record's signature is the one that the official client makes."""
    assert record_signature(secret, key) == crypto.create_hmac_signature(secret, key)


@given(secret=TEXTS, days=st.none() | st.integers(1, 10_000))
def test_storages_as_the_client_signs_them(secret: str, days: int | None) -> None:
    """What the official client signs, with ``=`` at its end, is believed; and without as well, as JavaScript does."""
    expires_in = timedelta(days=days) if days is not None else None
    signed = crypto.create_storage_content_signature("Bn7Mq2We5Rt9Yu3Io", secret, expires_in=expires_in)
    for spelling in (signed, signed.rstrip("=")):
        assert is_storage_signature(spelling, secret, "Bn7Mq2We5Rt9Yu3Io", now_ms=1)


@pytest.mark.parametrize(
    ("expires_at_ms", "holds"),
    [
        pytest.param(0, True, id="0: for ever"),
        pytest.param(NOW_MS + 1, True, id="a moment left"),
        pytest.param(NOW_MS, False, id="expired just now"),
        pytest.param(1, False, id="expired long ago"),
    ],
)
def test_until_when(expires_at_ms: int, holds: bool) -> None:
    """A signature holds until the time that it says."""
    signed = storage_signature("s", "dataset", expires_at_ms=expires_at_ms)
    assert is_storage_signature(signed, "s", "dataset", now_ms=NOW_MS) is holds


def _spelled(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    "given",
    [
        pytest.param("", id="empty"),
        pytest.param("ž", id="not ASCII"),
        pytest.param("\ud800", id="no text"),
        pytest.param("####", id="not base64"),
        pytest.param("A", id="cut base64"),
        pytest.param(_spelled("0.0"), id="a part is missing"),
        pytest.param(_spelled("0.0."), id="an empty signature"),
        pytest.param(_spelled("0.-1.abc"), id="a negative time"),
        pytest.param(_spelled(f"0.{'9' * 5000}.abc"), id="a huge time"),
        pytest.param(_spelled(f"0.{NOW_MS * 2}.{record_signature('s', 'dataset')}"), id="another message's"),
        pytest.param(_spelled(f"1.0.{record_signature('s', '1.0.dataset')}"), id="an unknown version"),
        pytest.param(storage_signature("other", "dataset"), id="another secret's"),
        pytest.param(storage_signature("s", "other"), id="another storage's"),
        pytest.param(record_signature("s", "dataset"), id="a record's"),
    ],
)
def test_wrong_ones(given: str) -> None:
    """A signature that is not right to the letter is none, and nothing that is given makes it fail."""
    assert not is_storage_signature(given, "s", "dataset", now_ms=NOW_MS)
    assert not is_record_signature(given, "s", "key")


@given(signature=st.text(max_size=60))
def test_guesses(signature: str) -> None:
    """Whatever is guessed is wrong."""
    assert not is_storage_signature(signature, "s", "dataset", now_ms=NOW_MS)
