"""The shapes of names and identifiers."""

from __future__ import annotations

import hashlib
import re
import string

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.core.ids import (
    ACTOR_NAME_PATTERN,
    ID_BYTES,
    ID_PATTERN,
    LIVE_VIEW_LABEL_BYTES,
    TOKEN_BYTES,
    api_token,
    dns_friendly,
    live_view_label,
    record_id,
    standby_label,
    token_hash,
    username_problem,
)

LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
label_bytes = st.binary(min_size=LIVE_VIEW_LABEL_BYTES, max_size=LIVE_VIEW_LABEL_BYTES)
usernames = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{1,28}[A-Za-z0-9]", fullmatch=True)
actor_names = st.from_regex(ACTOR_NAME_PATTERN, fullmatch=True)


@given(st.binary(min_size=ID_BYTES))
def test_ids_have_17_base62_characters(random_bytes: bytes) -> None:
    """Whatever the bytes; more than are needed are fine."""
    assert ID_PATTERN.fullmatch(record_id(random_bytes))


@given(label_bytes)
def test_live_view_labels_keep_all_128_bits(random_bytes: bytes) -> None:
    """26 characters of base32 that can be read back: no two secrets share a label."""
    label = live_view_label(random_bytes)
    assert len(label) == 26
    number = 0
    for character in label:
        number = number * 32 + "abcdefghijklmnopqrstuvwxyz234567".index(character)
    assert number.to_bytes(LIVE_VIEW_LABEL_BYTES) == random_bytes


@given(label_bytes, st.integers(0, 127))
def test_live_view_labels_differ_with_each_bit(random_bytes: bytes, bit: int) -> None:
    """Not one bit is wasted."""
    flipped = (int.from_bytes(random_bytes) ^ (1 << bit)).to_bytes(LIVE_VIEW_LABEL_BYTES)
    assert live_view_label(random_bytes) != live_view_label(flipped)


@given(st.binary(min_size=TOKEN_BYTES, max_size=TOKEN_BYTES), st.integers(0, 255))
def test_tokens_keep_all_256_bits(random_bytes: bytes, bit: int) -> None:
    """A token is its prefix and 43 characters; it differs with each bit, and so does its hash."""
    token = api_token(random_bytes)
    other = api_token((int.from_bytes(random_bytes) ^ (1 << bit)).to_bytes(TOKEN_BYTES))
    assert re.fullmatch(r"greenroom_api_[0-9A-Za-z]{43}", token)
    assert token != other
    assert token_hash(token) != token_hash(other)


def test_a_hash_is_plain_sha256() -> None:
    """Of the token's bytes as they came, also where they were no UTF-8."""
    assert token_hash("abc") == hashlib.sha256(b"abc").hexdigest()
    assert token_hash(b"\xff\xfe".decode("utf-8", "surrogateescape")) == hashlib.sha256(b"\xff\xfe").hexdigest()


@pytest.mark.parametrize(
    ("username", "expected"),
    [
        pytest.param("bob", "bob", id="as it is"),
        pytest.param("Bob", "bob", id="lower case"),
        pytest.param("jane.doe", "jane-doe", id="a dot"),
        pytest.param("jane__doe", "jane-doe", id="a row of others is one hyphen"),
        pytest.param("jane-doe", "jane-doe", id="hyphens stay"),
        pytest.param("a-_b", "a--b", id="a hyphen beside another character"),
        pytest.param("_jane_", "jane", id="trimmed"),
        pytest.param("žofie", "ofie", id="beyond ASCII"),
    ],
)
def test_dns_friendly(username: str, expected: str) -> None:
    """The platform's mapping of usernames to host names."""
    assert dns_friendly(username) == expected


@given(st.text())
def test_dns_friendly_is_stable_and_fits_dns(username: str) -> None:
    """What comes out is made of DNS's characters, and doing it twice changes nothing."""
    friendly = dns_friendly(username)
    assert set(friendly) <= set(string.ascii_lowercase + string.digits + "-")
    assert dns_friendly(friendly) == friendly


@pytest.mark.parametrize(
    ("username", "is_good"),
    [
        pytest.param("bob", True, id="three characters"),
        pytest.param("b" * 30, True, id="thirty"),
        pytest.param("jane.doe_x-1", True, id="all kinds"),
        pytest.param("bo", False, id="two characters"),
        pytest.param("b" * 31, False, id="thirty-one"),
        pytest.param("", False, id="empty"),
        pytest.param("-bob", False, id="begins with a hyphen"),
        pytest.param("bob.", False, id="ends with a dot"),
        pytest.param("bob\n", False, id="a line's end"),
        pytest.param("jané", False, id="beyond ASCII"),
        pytest.param("bo b", False, id="a blank"),
        pytest.param("a--b", False, id="two hyphens divide user from Actor"),
        pytest.param("a-.b", False, id="two hyphens once it is a host name"),
        pytest.param("a..b", True, id="two dots are one hyphen"),
    ],
)
def test_usernames(username: str, is_good: bool) -> None:
    """3 to 30 characters, and never two hyphens in the host name."""
    assert (username_problem(username) is None) is is_good


@given(usernames, actor_names)
def test_standby_labels_can_be_read_in_one_way(username: str, actor_name: str) -> None:
    """A label, where there is one, divides at its first ``--``, also where the Actor's name has one."""
    assume(username_problem(username) is None)
    label = standby_label(username, actor_name)
    whole = f"{dns_friendly(username)}--{actor_name.lower()}"
    if label is None:
        assert len(whole) > 63
    else:
        assert label == whole
        assert len(label) <= 63
        assert LABEL.fullmatch(label)
        user, _, name = label.partition("--")
        assert (user, name) == (dns_friendly(username), actor_name.lower())


def test_a_label_too_long_for_dns_is_none() -> None:
    """63 octets fit, 64 don't; the Actor's id serves then."""
    assert standby_label("bob", "a" * 58) == "bob--" + "a" * 58
    assert standby_label("bob", "a" * 59) is None
