"""Terms by headers: what is the same for the next request, when it no longer holds, and how much is kept of it."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from proxy.suite.stage import TOKEN, open_stand

from gateway.core.errors import InvalidRequest, TokenNotFound, UserNotAuthenticated
from gateway.core.standby import StandbyTarget
from gateway.proxy.asgi_terms import TermsBook
from gateway.proxy.decisions import Decisions

HOST = (b"host", b"bob--shut-warm.localhost")
BEARER = (b"authorization", b"Bearer " + TOKEN.encode())


def scope(*headers: tuple[bytes, bytes], **more: Any) -> dict[str, Any]:
    """A request with these headers, or with a host and a good token."""
    return {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "client": ("127.0.0.1", 1),
        "raw_path": b"/",
        "query_string": b"",
        "headers": list(headers or (HOST, BEARER)),
        **more,
    }


@pytest.fixture(params=["the same headers", "over the same connection"])
def shared(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What requests with the same headers have in common besides: with our own server, what it has them remember."""
    is_ours = request.param == "over the same connection"
    return {"extensions": {"greenroom": SimpleNamespace(memo={})}} if is_ours else {}


@pytest.fixture
async def decisions(tmp_path: Path) -> AsyncIterator[Decisions]:
    """Those of a gateway that knows the token."""
    async with open_stand(tmp_path, proxy_protocol="asgi") as stand:
        await stand.gateway.services.auth.principal(TOKEN)
        yield stand.gateway.decisions


@pytest.fixture
def target(decisions: Decisions) -> StandbyTarget:
    """An Actor that wants a token."""
    return decisions.target("bob--shut-warm")


def now(decisions: Decisions) -> float:
    """By the authenticator's clock."""
    return decisions.auth._clock()


async def test_the_same_again(decisions: Decisions, target: StandbyTarget, shared: dict[str, Any]) -> None:
    """Requests with the same headers have the same terms, whatever their path and their other query."""
    book = TermsBook(decisions)
    first = book.standby_at_once(scope(**shared), target, "", now(decisions))
    again = book.standby_at_once(scope(**shared, raw_path=b"/other", query_string=b"a=b"), target, "", now(decisions))
    assert first is not None
    assert first is again
    assert (book.hits, book.misses) == (1, 1)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(scope(HOST, BEARER, (b"x", b"1")), id="a header"),
        pytest.param(scope(client=("127.0.0.2", 1)), id="another caller"),
        pytest.param(scope(client=None), id="nobody knows whom"),
        pytest.param(scope(scheme="https"), id="by TLS"),
        pytest.param(scope(http_version="1.0"), id="HTTP/1.0"),
        pytest.param(scope(http_version="2"), id="HTTP/2"),
        pytest.param(scope(type="websocket"), id="a WebSocket"),
    ],
)
async def test_others(decisions: Decisions, target: StandbyTarget, other: dict[str, Any]) -> None:
    """Whatever the Actor is told of differs, so do the terms."""
    book = TermsBook(decisions)
    first = book.standby_at_once(scope(), target, "", now(decisions))
    second = book.standby_at_once(other, target, "", now(decisions))
    assert first is not None
    assert second is not None
    assert first is not second
    assert (first.plan, first.prepared) != (second.plan, second.prepared)


async def test_the_path_form(decisions: Decisions, target: StandbyTarget, shared: dict[str, Any]) -> None:
    """Its answers are kept in a sandbox, and those at the Actor's own host are not."""
    book = TermsBook(decisions)
    plain = book.standby_at_once(scope(**shared), target, "", now(decisions))
    path = book.standby_at_once(scope(**shared), target, "/standby/bob--shut-warm", now(decisions))
    assert plain is not None
    assert path is not None
    assert (plain.plan.is_sandboxed, path.plan.is_sandboxed) == (False, True)


@pytest.mark.parametrize("query", [b"token=" + TOKEN.encode(), b"to%6ben=" + TOKEN.encode(), b"a=%20"])
async def test_a_query_that_may_hold_a_token(
    decisions: Decisions, target: StandbyTarget, query: bytes, shared: dict[str, Any]
) -> None:
    """Such a request is looked at by itself, and nothing of it is remembered; nor is it served from memory."""
    book = TermsBook(decisions)
    assert book.standby_at_once(scope(**shared, query_string=query), target, "", now(decisions)) is not None
    assert len(book) == 0
    known = book.standby_at_once(scope(**shared), target, "", now(decisions))
    assert book.standby_at_once(scope(**shared, query_string=query), target, "", now(decisions)) is not known


async def test_what_no_longer_holds(decisions: Decisions, target: StandbyTarget, shared: dict[str, Any]) -> None:
    """Tokens that were forgotten, or believed for long enough, have the records asked again."""
    book = TermsBook(decisions)
    terms = book.standby_at_once(scope(**shared), target, "", now(decisions))
    assert terms is not None
    assert now(decisions) < terms.until < math.inf
    decisions.auth.forget_all()
    assert book.standby_at_once(scope(**shared), target, "", now(decisions)) is None
    asked = await book.standby(scope(**shared), "bob--shut-warm", target, "")
    assert asked is not terms
    anew = book.standby_at_once(scope(**shared), target, "", now(decisions))
    assert anew is not None
    late = book.standby_at_once(scope(**shared), target, "", anew.until)
    assert late is not anew


async def test_an_actor_that_has_changed(decisions: Decisions, target: StandbyTarget, shared: dict[str, Any]) -> None:
    """The terms are those of its settings, so others have to be made."""
    book = TermsBook(decisions)
    first = book.standby_at_once(scope(**shared), target, "", now(decisions))
    other = decisions.target("bob--open-warm")
    second = book.standby_at_once(scope(**shared), other, "", now(decisions))
    assert first is not None
    assert second is not None
    assert (first.subject, second.subject) == (target, other)


async def test_who_may_not(decisions: Decisions, target: StandbyTarget) -> None:
    """No token, a bad one, and headers that can't be passed on: nothing of them is remembered."""
    book = TermsBook(decisions)
    with pytest.raises(UserNotAuthenticated):
        book.standby_at_once(scope(HOST), target, "", now(decisions))
    bad = scope(HOST, (b"authorization", b"Bearer nobody's"))
    assert book.standby_at_once(bad, target, "", now(decisions)) is None
    with pytest.raises(TokenNotFound):
        await book.standby(bad, "bob--shut-warm", target, "")
    with pytest.raises(InvalidRequest):
        book.standby_at_once(scope(HOST, HOST, BEARER), target, "", now(decisions))
    assert len(book) == 0


async def test_bounds(decisions: Decisions, target: StandbyTarget) -> None:
    """So many entries, so many bytes; what is too large is not remembered, and all is dropped when it is full."""
    book = TermsBook(decisions, max_entries=3)
    for number in range(10):
        book.standby_at_once(scope(HOST, BEARER, (b"x", b"%d" % number)), target, "", now(decisions))
        assert len(book) <= 3
    book = TermsBook(decisions, max_bytes=3000)
    for number in range(10):
        book.standby_at_once(scope(HOST, BEARER, (b"x", b"%01000d" % number)), target, "", now(decisions))
        assert len(book) <= 2
    book.clear()
    book.standby_at_once(scope(HOST, BEARER, (b"x", b"v" * 5000)), target, "", now(decisions))
    assert len(book) == 0


async def test_no_token_is_shown(decisions: Decisions, target: StandbyTarget) -> None:
    """What may end up in a log holds none."""
    book = TermsBook(decisions)
    terms = book.standby_at_once(scope(), target, "", now(decisions))
    assert TOKEN not in repr(book)
    assert TOKEN not in repr(terms)
    assert terms is not None
    assert terms.prepared is not None
    assert TOKEN.encode() not in terms.prepared.text
