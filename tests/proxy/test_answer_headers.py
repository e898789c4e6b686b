"""What of an Actor's headers reaches the caller, by either path; the rest of it stands in ``test_headers``."""

from __future__ import annotations

from http.client import HTTPMessage
from http.cookiejar import CookieJar
from io import BytesIO
from urllib.request import Request
from urllib.response import addinfourl

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.proxy.headers import lines_for_caller, with_own_domain

HOST = b"bob--hello.localhost:8010"


def test_what_is_the_actors_to_say_passes_untouched() -> None:
    """Names as they are spelled, values, order and duplicates."""
    headers = [
        (b"X-A", b" \xff\t"), (b"x-a", b"2"), (b"Content-Length", b"007"), (b"Content-Encoding", b"br"),
        (b"VARY", b"*"), (b"Link", b"</a>; rel=preload"), (b"X-A", b""), (b"Server", b"x"), (b"Date", b"never"),
    ]  # fmt: skip
    assert lines_for_caller(headers, HOST) == headers


@pytest.mark.parametrize(
    "name",
    [
        "Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Authentication-Info",
        "Proxy-Connection", "TE", "Trailer", "Transfer-Encoding", "Upgrade", "X-Actor-Request-ID", "Set-Cookie2",
        "X-Named", "x-other",
    ],
)  # fmt: skip
@pytest.mark.parametrize("spell", [str, str.lower, str.upper], ids=["as is", "small", "large"])
def test_what_is_not(name: str, spell: type[str]) -> None:
    """What belongs to the Actor's own connection, what that names, and the request id."""
    headers = [(b"A", b"1"), (b"cOnnection", b"close,\tX-NAMED , x-other,"), (spell(name).encode(), b"x"), (b"B", b"2")]
    assert lines_for_caller(headers, HOST) == [(b"A", b"1"), (b"B", b"2")]


@pytest.mark.parametrize("name", [b"Content-Length", b"host"])
def test_connection_names_these_in_vain(name: bytes) -> None:
    """Without them the answer would end elsewhere."""
    assert lines_for_caller([(b"Connection", name), (name, b"1")], HOST) == [(name, b"1")]


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        pytest.param(b"; Domain=localhost", b"", id="the parent"),
        pytest.param(b"; Domain=.localhost", b"", id="the parent with a dot"),
        pytest.param(b"; Domain=alice--x.localhost", b"", id="a sibling"),
        pytest.param(b"; Domain=x.bob--hello.localhost", b"", id="a child"),
        pytest.param(b"; Domain=com", b"", id="a public suffix"),
        pytest.param(b"; Domain=bob--hello.localhost", b"; Domain=bob--hello.localhost", id="the host"),
        pytest.param(b";DOMAIN=.BOB--hello.LocalHost;x", b";DOMAIN=.BOB--hello.LocalHost;x", id="in any case"),
        pytest.param(b"; domain \t= \tbob--hello.localhost ", b"; domain \t= \tbob--hello.localhost ", id="spaced"),
        pytest.param(b"; Domain=..bob--hello.localhost", b"", id="two dots"),
        pytest.param(b"; Domain=bob--hello.localhost.", b"", id="a dot behind"),
        pytest.param(b'; Domain="bob--hello.localhost"', b"", id="quoted"),
        pytest.param(b'; Domain="localhost"', b"", id="quoted, the parent"),
        pytest.param(b"; Domain=bob--hello.localhost:8010", b"", id="with a port"),
        pytest.param(b"; Domain=localhost; Domain=bob--hello.localhost", b"; Domain=bob--hello.localhost", id="two"),
        pytest.param(b"; Domain=bob--hello.localhost; Domain=localhost", b"; Domain=bob--hello.localhost", id="or so"),
        pytest.param(b"; Domain", b"", id="without a value"),
        pytest.param(b"; Domain==localhost", b"", id="two signs"),
        pytest.param(b";\xa0Domain=localhost", b"", id="a space of ISO 8859-1"),
        pytest.param(b";Domain\x85=localhost", b"", id="another"),
        pytest.param(b"; Domain=\xc3\xa4.localhost", b"", id="not in ASCII"),
        pytest.param(b"; Domains=localhost; XDomain=localhost", b"; Domains=localhost; XDomain=localhost", id="others"),
        pytest.param(b"; Path=/domain=localhost", b"; Path=/domain=localhost", id="within another"),
        pytest.param(
            b"; Expires=Wed, 21 Oct 2026 07:28:00 GMT; Domain=localhost; Max-Age=1",
            b"; Expires=Wed, 21 Oct 2026 07:28:00 GMT; Max-Age=1", id="between others",
        ),
        pytest.param(b"; ;; Domain=localhost;", b"; ;;", id="empty ones"),
    ],
)  # fmt: skip
def test_odd_domains(attributes: bytes, expected: bytes) -> None:
    """Whatever form it has, a domain other than the host is cut; all else stays byte for byte."""
    for pair in (b"a=1", b"", b"=", b'a="x', b"domain=localhost", b"\xff"):
        assert with_own_domain(pair + attributes, HOST) == pair + expected


@pytest.mark.parametrize(
    ("host", "domain", "stays"),
    [
        pytest.param(b"a.example", b"a.example", True, id="no port"),
        pytest.param(b"A.Example:443", b"a.example", True, id="in any case, a port"),
        pytest.param(b"a.example:", b"a.example", True, id="an empty port"),
        pytest.param(b"[::1]:8010", b"[::1]", True, id="IPv6"),
        pytest.param(b"[::1]", b"[::", False, id="IPv6 without a port"),
        pytest.param(b"127.0.0.1:80", b"127.0.0.1", True, id="IPv4"),
        pytest.param(b"127.0.0.1:80", b"0.0.1", False, id="a part of it"),
        pytest.param(b"", b"", False, id="no host"),
        pytest.param(b"", b"localhost", False, id="no host, some domain"),
        pytest.param(b"example", b"a.example", False, id="a child of the host"),
    ],
)
def test_domains_of_hosts(host: bytes, domain: bytes, stays: bool) -> None:
    """The host is the one that was asked for, without its port."""
    attribute = b"; Domain=" + domain
    assert with_own_domain(b"a=1" + attribute, host) == (b"a=1" + attribute if stays else b"a=1")


def domain_of(cookie: bytes) -> bytes | None:
    """The domain that a browser takes a cookie to be for (RFC 6265 §5.2): the last one that is not empty."""
    domain = None
    for attribute in cookie.split(b";")[1:]:
        name, _, value = attribute.partition(b"=")
        if name.strip(b" \t").lower() == b"domain" and value.strip(b" \t"):
            domain = value.strip(b" \t").removeprefix(b".").lower()
    return domain


DEEP = b"bob--hello.apps.example.com"
_PARTS = st.sampled_from(
    [
        b"Domain", b"domain=", b"=", b"apps.example.com", b".example.com", DEEP, b".", b";", b"; ", b" ", b"\t", b",",
        b'"', b"a", b"a=1", b"Path=/", b"\xa0", b"\x85", b"Expires=Wed, 21 Oct 2099 07:28:00 GMT", b":8010", b"\\",
        b"; DOMAIN=APPS.EXAMPLE.COM", b"; \xa0Domain = .apps.example.com",
    ]
)  # fmt: skip
_COOKIES = st.lists(_PARTS, max_size=12).map(b"".join)


def kept_by_python(cookie: bytes) -> set[str]:
    """The domains of the cookies that Python's own client keeps."""
    jar, headers = CookieJar(), HTTPMessage()
    headers["Set-Cookie"] = cookie.decode("latin-1")
    asked = Request(f"http://{DEEP.decode()}/")
    jar.extract_cookies(addinfourl(BytesIO(), headers, asked.full_url), asked)  # type: ignore[arg-type]
    return {found.domain.lstrip(".") for found in jar}


@given(_COOKIES)
@example(b"a=1;\xa0Domain=apps.example.com")
@example(b"a=1; Domain=apps.example.com; Domain=")
def test_no_cookie_is_for_more_than_its_host(cookie: bytes) -> None:
    """Neither a browser nor Python's own client finds another domain in it, and what had none stays as it was."""
    kept = with_own_domain(cookie, DEEP)
    assert domain_of(kept) in (None, DEEP)
    assert kept_by_python(kept) <= {DEEP.decode()}
    assert with_own_domain(kept, DEEP) == kept
    if b"domain" not in cookie.lower():
        assert kept == cookie


def test_that_client_would_keep_others() -> None:
    """So what the test before this one finds is worth something."""
    assert kept_by_python(b"a=1;\xa0Domain=apps.example.com") == {"apps.example.com"}
