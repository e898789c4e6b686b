"""Which names an Actor may have besides its own."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.core.ids import ACTOR_NAME_PATTERN, ID_BYTES, record_id, standby_label, username_problem
from gateway.core.names import (
    CHALLENGE_BYTES,
    PROOF_PATH,
    RESERVED_LABELS,
    ActorName,
    NameKind,
    alias_problem,
    domain_problem,
    proof_of,
)
from gateway.proxy.hosts import OWN_LABELS, Standby, host_name, parse_host

USERNAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{1,28}[A-Za-z0-9]", fullmatch=True)
LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)


@pytest.mark.parametrize(
    ("label", "problem"),
    [
        pytest.param("shop", None, id="a word"),
        pytest.param("s", None, id="a letter"),
        pytest.param("7", None, id="a digit"),
        pytest.param("my-shop-2", None, id="hyphens"),
        pytest.param("a" * 63, None, id="63 letters"),
        pytest.param("abcdefghij123456", None, id="16 letters and digits"),
        pytest.param("abcdefghij-123456", None, id="17 with a hyphen"),
        pytest.param("xn--bcher-kva", None, id="another alphabet"),
        pytest.param("abcdefghij1234567", "could be taken for an Actor's id", id="17 letters and digits"),
        pytest.param("jane--hello", "divides user from Actor", id="like a user's Actor"),
        pytest.param("a" * 64, "1 to 63", id="64 letters"),
        pytest.param("", "1 to 63", id="nothing"),
        pytest.param("-a", "both ends", id="a hyphen first"),
        pytest.param("a-", "both ends", id="a hyphen last"),
        pytest.param("a_b", "1 to 63", id="an underscore"),
        pytest.param("Shop", "1 to 63", id="not in lower case"),
        pytest.param("a.b", "1 to 63", id="two labels"),
        pytest.param("shop\n", "1 to 63", id="a line feed"),
        pytest.param("api", "reserved", id="the API"),
        pytest.param("runs", "reserved", id="the parent of live views"),
        pytest.param("www", "reserved", id="www"),
        pytest.param("wpad", "reserved", id="where browsers look for a proxy"),
    ],
)
def test_aliases(label: str, problem: str | None) -> None:
    """Each refusal says why."""
    told = alias_problem(label)
    assert (told is None) == (problem is None)
    assert problem is None or problem in (told or "")


def test_greenrooms_own_labels_are_reserved() -> None:
    """Whatever becomes a host of Greenroom's own can't be an alias."""
    assert OWN_LABELS | {"runs"} <= RESERVED_LABELS


@given(USERNAMES, st.from_regex(ACTOR_NAME_PATTERN, fullmatch=True))
def test_no_alias_is_the_label_of_an_actor(username: str, actor_name: str) -> None:
    """Neither of one that is there nor of one to come."""
    assume(username_problem(username) is None)
    label = standby_label(username, actor_name)
    assert label is None or alias_problem(label) is not None


@given(st.binary(min_size=ID_BYTES, max_size=ID_BYTES))
def test_no_alias_is_an_id(random_bytes: bytes) -> None:
    """An Actor's id is a host label too."""
    assert alias_problem(record_id(random_bytes).lower()) is not None


@given(LABELS)
def test_an_alias_is_a_standby_host(label: str) -> None:
    """Every label that may be an alias means just that as a host."""
    assume(alias_problem(label) is None)
    assert parse_host(f"{label}.greenroom.test", "greenroom.test") == Standby(label)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        pytest.param("shop.example.com", None, id="a name"),
        pytest.param("example.com", None, id="the top of a domain"),
        pytest.param("xn--bcher-kva.example", None, id="another alphabet"),
        pytest.param("a--b.example.com", None, id="two hyphens"),
        pytest.param("3.example.com", None, id="a number that is not last"),
        pytest.param("notgreenroom.test", None, id="one that only ends like ours"),
        pytest.param(".".join(["a" * 40] * 5) + "." + "a" * 37, None, id="242 characters"),
        pytest.param(".".join(["a" * 40] * 5) + "." + "a" * 38, "at most 242", id="243 characters"),
        pytest.param("*.example.com", "wildcards", id="a wildcard"),
        pytest.param("a.*.com", "wildcards", id="a wildcard within"),
        pytest.param("shop..com", "such as shop.example.com", id="an empty label"),
        pytest.param(".example.com", "such as shop.example.com", id="an empty label first"),
        pytest.param("a" * 64 + ".com", "such as shop.example.com", id="a long label"),
        pytest.param("http://example.com", "without scheme", id="a URL"),
        pytest.param("example.com:80", "without scheme, port", id="a port"),
        pytest.param("bob@example.com", "such as", id="user info"),
        pytest.param("a_b.example.com", "such as", id="an underscore"),
        pytest.param("192.0.2.1", "IP address", id="IPv4"),
        pytest.param("a.0x1f", "IP address", id="what a URL parser takes for IPv4"),
        pytest.param("greenroom.test", "Greenroom itself", id="our domain"),
        pytest.param("a.b.greenroom.test", "are aliases", id="below our domain"),
        pytest.param("k3.runs.greenroom.test", "are aliases", id="a live view's"),
        pytest.param("a.localhost", "different machine", id="below localhost"),
    ],
)
def test_custom_domains(name: str, problem: str | None) -> None:
    """Each refusal says why; what is taken is a host that can come."""
    told = domain_problem(name, "greenroom.test")
    assert (told is None) == (problem is None), told
    assert problem is None or problem in (told or "")
    assert problem is not None or host_name(name) == name


def test_what_a_proof_is() -> None:
    """Where it is looked for and what it says; the path alone does not say it, so that an echo proves nothing."""
    at = datetime(2026, 1, 2, tzinfo=UTC)
    challenge = "0f" * CHALLENGE_BYTES
    name = ActorName(
        id="1", actor_id="a", user_id="u", kind=NameKind.DOMAIN, name="shop.test", challenge=challenge, created_at=at
    )
    assert name.proof == proof_of(challenge) == f"greenroom-verification={challenge}"
    assert name.proof_record == "_greenroom.shop.test"
    assert name.proof_path == f"/.well-known/greenroom-verification/{challenge}"
    assert name.proof not in name.proof_path
    assert re.fullmatch(r"/[!-~]+/", PROOF_PATH)
    assert (name.host("greenroom.test"), name.is_verified) == ("shop.test", False)
