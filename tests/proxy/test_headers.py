"""What of a head reaches the Actor, and what of its answer the caller."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import CodingNotSupported, GreenroomError, InvalidRequest, LoopDetected, MethodNotAllowed
from gateway.core.model import Address
from gateway.proxy.headers import (
    CHUNKED,
    accept_headers,
    answer_headers,
    body_length,
    candidates_of,
    credentials_of,
    target,
    upgrade_head,
    upstream_head,
    without_token,
)
from gateway.proxy.plan import Credentials, ForwardPlan, Headers

PLAN = ForwardPlan(
    address=Address(host="127.0.0.1", port=4321),
    request_id="fresh",
    credentials=Credentials(),
    client_host="192.0.2.7",
    scheme="https",
    host="bob--hello.localhost:8010",
)
HOST = (b"host", b"bob--hello.localhost:8010")
OURS = [
    (b"x-forwarded-for", b"192.0.2.7"),
    (b"x-forwarded-host", b"bob--hello.localhost:8010"),
    (b"x-forwarded-proto", b"https"),
    (b"forwarded", b'for=192.0.2.7;host="bob--hello.localhost:8010";proto=https'),
    (b"via", b"1.1 greenroom"),
    (b"x-actor-request-id", b"fresh"),
]


def sent(headers: Headers, plan: ForwardPlan = PLAN, method: str = "GET") -> list[tuple[bytes, bytes]]:
    """The headers that the Actor gets, names in lower case."""
    lines = upstream_head(method, b"/", b"", headers, plan).split(b"\r\n")
    assert lines[-2:] == [b"", b""]
    pairs = [line.partition(b": ") for line in lines[1:-2]]
    return [(name.lower(), value) for name, _, value in pairs]


@pytest.mark.parametrize(
    ("headers", "query", "expected"),
    [
        pytest.param([], b"", [], id="none"),
        pytest.param([(b"authorization", b"Bearer a")], b"", ["a"], id="Authorization"),
        pytest.param([(b"Authorization", b"bEaReR   a ")], b"", ["a"], id="any case, any space"),
        pytest.param([(b"x-apify-authorization", b"Bearer b")], b"", ["b"], id="X-Apify-Authorization"),
        pytest.param([], b"token=c", ["c"], id="the query"),
        pytest.param(
            [(b"x-apify-authorization", b"Bearer b"), (b"authorization", b"Bearer a")],
            b"x=1&token=c",
            ["a", "b", "c"],
            id="most telling first",
        ),
        pytest.param([(b"authorization", b"Bearer a")], b"token=a", ["a"], id="the same twice is one"),
        pytest.param([(b"authorization", b"Basic YTpi")], b"", [], id="another scheme"),
        pytest.param([(b"authorization", b"Bearer")], b"", [], id="no token"),
        pytest.param([(b"authorization", b"Bearer ")], b"", [], id="an empty token"),
        pytest.param([], b"token=", [], id="an empty parameter"),
        pytest.param([], b"token", [], id="a parameter without value"),
        pytest.param([], b"xtoken=a&Token=b&token2=c&token[]=d", [], id="only looks like it"),
        pytest.param([], b"%74oken=a%2Bb+c", ["a+b c"], id="decoded as forms are"),
    ],
)
def test_candidates(headers: Headers, query: bytes, expected: list[str]) -> None:
    """The tokens of a request, in the order in which they are tried."""
    assert candidates_of(headers, query) == expected


def test_credentials_name_every_place_of_the_token() -> None:
    """A token that matched is removed wherever it stands, and no other one is ours."""
    headers = [(b"authorization", b"Bearer a"), (b"x-apify-authorization", b"Bearer b")]
    assert credentials_of(headers, b"token=a", {"a"}) == Credentials(token="a", in_authorization=True, in_query=True)
    assert credentials_of(headers, b"", {"b"}) == Credentials(token="b", in_apify_authorization=True)
    assert credentials_of(headers, b"", set()) == Credentials()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param(b"", b"", id="empty"),
        pytest.param(b"token=x", b"", id="alone"),
        pytest.param(b"a=1&token=x&b=2", b"a=1&b=2", id="in the middle"),
        pytest.param(b"token=x&a=1", b"a=1", id="first"),
        pytest.param(b"a=1&token=x", b"a=1", id="last"),
        pytest.param(b"token=x&token=y&a", b"a", id="several"),
        pytest.param(b"token&a=", b"a=", id="without value"),
        pytest.param(b"%74ok%65n=x&a=%2F%23%zz", b"a=%2F%23%zz", id="an encoded key, the rest untouched"),
        pytest.param(
            b"mytoken=x&token_=y&Token=z&a=token=q", b"mytoken=x&token_=y&Token=z&a=token=q", id="look-alikes"
        ),
        pytest.param(b"a=1&&b&=&c=", b"a=1&&b&=&c=", id="oddities stay"),
    ],
)
def test_without_token(query: bytes, expected: bytes) -> None:
    """Only the token parameter goes; everything else stays byte for byte."""
    assert without_token(query) == expected


@given(st.lists(st.sampled_from([b"token=s", b"a=1", b"", b"token", b"%74oken=s", b"tokens=1", b"x=%2F"]), max_size=8))
def test_no_token_is_left(parts: list[bytes]) -> None:
    """After the removal the query carries no token, and what is left are the other parts in order."""
    left = without_token(b"&".join(parts))
    assert candidates_of([], left) == []
    assert left == b"&".join(part for part in parts if part in (b"a=1", b"", b"tokens=1", b"x=%2F"))


@pytest.mark.parametrize(
    ("path", "query", "prefix", "keeps", "expected"),
    [
        pytest.param(b"/", b"", "", False, b"/", id="the root"),
        pytest.param(b"/a%2Fb%23%3F//c", b"x=&x=&y", "", False, b"/a%2Fb%23%3F//c?x=&x=&y", id="byte for byte"),
        pytest.param(b"/a", b"token=s", "", False, b"/a", id="no question mark is left"),
        pytest.param(b"/a", b"token=s", "", True, b"/a?token=s", id="credentials are kept"),
        pytest.param(b"/standby/b", b"q=1", "/standby/b", False, b"/?q=1", id="at least a slash"),
        pytest.param(b"/standby/b/x%20y", b"", "/standby/b", False, b"/x%20y", id="without the prefix"),
        pytest.param(b"*", b"", "", False, b"*", id="the server itself"),
    ],
)
def test_target(path: bytes, query: bytes, prefix: str, keeps: bool, expected: bytes) -> None:
    """The raw target reaches the Actor without the path form's prefix and our token."""
    assert target(path, query, replace(PLAN, prefix=prefix, keep_credentials=keeps)) == expected


@pytest.mark.parametrize("path", [b"/a b", b"/a\r\nx: y", b"/\x00", b"/#a", b"a", b"http://x/"])
def test_target_that_breaks_the_line(path: bytes) -> None:
    """What can't stand in a request line is refused."""
    with pytest.raises(InvalidRequest):
        target(path, b"", PLAN)


@pytest.mark.parametrize(
    "name",
    [
        "connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "te", "trailer",
        "upgrade", "x-named", "x-apify-authorization", "x-actor-request-id",
        "x-apify-container-server-readiness-probe", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto",
        "x-forwarded-port", "forwarded", "x_actor_request_id", "X_Forwarded_For", "content_length",
        "transfer_encoding", "http2-settings",
    ],
)  # fmt: skip
def test_what_never_reaches_the_actor(name: str) -> None:
    """Hop-by-hop headers, those named by Connection, our credentials and what only we may say."""
    headers = [HOST, (b"accept", b"*/*"), (name.encode(), b"x-named"), (b"Connection", b"close, X-Named")]
    assert sent(headers) == [HOST, (b"accept", b"*/*"), *OURS]


def test_connection_can_not_name_the_framing_away() -> None:
    """Host and the framing stay whatever Connection says."""
    headers = [HOST, (b"connection", b"host, content-length, transfer-encoding"), (b"content-length", b"3")]
    assert sent(headers) == [HOST, (b"content-length", b"3"), *OURS]
    assert sent([HOST, headers[1], (b"transfer-encoding", b"chunked")]) == [
        HOST, (b"transfer-encoding", b"chunked"), *OURS,
    ]  # fmt: skip


def test_order_and_duplicates_stay() -> None:
    """Everything else reaches the Actor as it came."""
    odd = [(b"b", b"1"), (b"cookie", b"a=1"), (b"a", b""), (b"cookie", b"b=2"), (b"b", b"2"), (b"x", b"\xe4,  y")]
    assert sent([*odd[:3], HOST, *odd[3:]]) == [*odd[:3], HOST, *odd[3:], *OURS]


@pytest.mark.parametrize(
    ("credentials", "keeps", "stays"),
    [
        pytest.param(Credentials(), False, True, id="another's Authorization stays"),
        pytest.param(Credentials(token="t", in_authorization=True), False, False, id="ours goes"),
        pytest.param(Credentials(token="t", in_authorization=True), True, True, id="ours stays where wanted"),
    ],
)
def test_authorization(credentials: Credentials, keeps: bool, stays: bool) -> None:
    """Authorization is removed only where its token is the one that matched."""
    header = (b"authorization", b"Bearer t")
    got = sent([HOST, header], replace(PLAN, credentials=credentials, keep_credentials=keeps))
    assert (header in got) is stays


def test_kept_credentials_are_all_kept() -> None:
    """An owner who forwards credentials forwards all of them."""
    header = (b"x-apify-authorization", b"Bearer t")
    assert header in sent([HOST, header], replace(PLAN, keep_credentials=True))


@pytest.mark.parametrize(
    ("referer", "keeps", "expected"),
    [
        (b"http://a.localhost/x?token=t", False, b"http://a.localhost/x"),
        (b"http://a.localhost/?a=1&tok%65n=t&b=2", False, b"http://a.localhost/?a=1&b=2"),
        (b"http://a.localhost/token=1?a=token", False, b"http://a.localhost/token=1?a=token"),
        (b"http://a.localhost/?token=t", True, b"http://a.localhost/?token=t"),
    ],
)
def test_referer(referer: bytes, keeps: bool, expected: bytes) -> None:
    """A page that was opened with ``?token=`` sends its own address with whatever it asks for: less the token."""
    got = sent([HOST, (b"referer", referer)], replace(PLAN, keep_credentials=keeps))
    assert (b"referer", expected) in got


def test_sandboxed_cookies_stay_out() -> None:
    """In the path form no cookie reaches the Actor: it shares the host with others."""
    plan = replace(PLAN, is_sandboxed=True, prefix="/standby/b")
    head = upstream_head("GET", b"/standby/b/x", b"", [HOST, (b"cookie", b"a=1")], plan)
    assert head.startswith(b"GET /x HTTP/1.1\r\n")
    assert b"cookie" not in head.lower()
    assert b"X-Forwarded-Prefix: /standby/b\r\n" in head


@pytest.mark.parametrize(
    ("client", "forwarded"),
    [
        pytest.param("2001:db8::1", b'for="[2001:db8::1]";host=h;proto=https', id="IPv6 is quoted"),
        pytest.param("", b"for=unknown;host=h;proto=https", id="nobody known"),
        pytest.param('a"\\b', b'for="a\\"\\\\b";host=h;proto=https', id="quotes are escaped"),
    ],
)
def test_forwarded(client: str, forwarded: bytes) -> None:
    """Forwarded follows RFC 7239."""
    assert (b"forwarded", forwarded) in sent([HOST], replace(PLAN, client_host=client, host="h"))


def test_trusted_proxies_are_told_after_the_client() -> None:
    """Both spellings list who passed the request on, nearest last; only the client's element says host and scheme."""
    got = dict(sent([HOST], replace(PLAN, proxies=("10.0.0.1", "fd00::1"), host="h")))
    assert got[b"x-forwarded-for"] == b"192.0.2.7, 10.0.0.1, fd00::1"
    assert got[b"forwarded"] == b'for=192.0.2.7;host=h;proto=https, for=10.0.0.1, for="[fd00::1]"'


def test_a_request_without_host_gets_the_plans() -> None:
    """HTTP/1.0 may leave Host out, HTTP/1.1 towards the Actor may not."""
    assert sent([])[0] == HOST


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param([], None, id="no body"),
        pytest.param([(b"Content-Length", b"0")], 0, id="an empty body"),
        pytest.param([(b"content-length", b"12")], 12, id="a length"),
        pytest.param([(b"content-length", b"\t012 ")], 12, id="a length with zeros and spaces around"),
        pytest.param([(b"content-length", b"9" * 18)], 10**18 - 1, id="the longest length"),
        pytest.param([(b"transfer-encoding", b"Chunked")], CHUNKED, id="chunked"),
        pytest.param([(b"content_length", b"1, 1"), (b"transfer_encoding", b"x")], None, id="other names"),
    ],
)
def test_body_length(headers: Headers, expected: int | None) -> None:
    """How long a request's body is."""
    assert body_length(headers) == expected


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([(b"content-length", b"1"), (b"content-length", b"2")], id="two lengths"),
        pytest.param([(b"content-length", b"1"), (b"Content-Length", b"1")], id="the same length twice"),
        pytest.param([(b"content-length", b"9" * 19)], id="too long a length"),
        pytest.param([(b"content-length", b"\xd9\xa1")], id="digits of another script"),
        pytest.param([(b"content-length", b"1, 1")], id="a list of lengths"),
        pytest.param([(b"content-length", b"+1")], id="a sign"),
        pytest.param([(b"content-length", b"")], id="an empty length"),
        pytest.param([(b"content-length", b"1"), (b"transfer-encoding", b"chunked")], id="both framings"),
        pytest.param([(b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"chunked")], id="chunked twice"),
        pytest.param([(b"transfer-encoding", b"chunked, chunked")], id="chunked twice in one"),
        pytest.param([(b"transfer-encoding", b"chunked,")], id="an empty coding"),
        pytest.param([(b"transfer-encoding", b"")], id="no coding"),
        pytest.param([(b"a b", b"1")], id="a space in a name"),
        pytest.param([(b"", b"1")], id="an empty name"),
        pytest.param([(b"a\r\nb", b"1")], id="a line break in a name"),
        pytest.param([(b"a", b"1\r\nb: 2")], id="a line break in a value"),
        pytest.param([(b"a", b"1\n")], id="a line feed in a value"),
        pytest.param([(b"a", b"\x00")], id="a NUL in a value"),
        pytest.param([(b"a", b"\x0b")], id="a control character in a value"),
        pytest.param([(b"a", b"1\x7f")], id="a DEL in a value"),
        pytest.param([HOST, HOST], id="two hosts"),
    ],
)
def test_ambiguous_heads_are_refused(headers: Headers) -> None:
    """A head that two servers could read in two ways reaches no Actor."""
    with pytest.raises(InvalidRequest):
        upstream_head("POST", b"/", b"", headers, PLAN)


@pytest.mark.parametrize(
    "codings",
    [[b"gzip, chunked"], [b"gzip", b"chunked"], [b"identity"], [b"xchunked"], [b"chunked;a=b"], [b'"chunked"']],
)
def test_other_codings_are_not_supported(codings: list[bytes]) -> None:
    """A body in a coding that we don't know ends where we can't tell: 501 (RFC 9112 §6.1)."""
    with pytest.raises(CodingNotSupported):
        upstream_head("POST", b"/", b"", [HOST, *((b"transfer-encoding", coding) for coding in codings)], PLAN)


def test_framing_goes_in_one_spelling() -> None:
    """It stays where it stood, and is written so that nobody can read it in another way than we did."""
    assert sent([(b"content-length", b"007 "), HOST])[0] == (b"content-length", b"7")
    assert sent([(b"transfer-encoding", b"\tCHUNKED"), HOST])[0] == (b"transfer-encoding", b"chunked")


def test_a_body_without_length_is_chunked() -> None:
    """Also where only the server knows that there is one."""
    assert upstream_head("POST", b"/", b"", [HOST], PLAN, is_chunked=True).count(b"Transfer-Encoding: chunked\r\n") == 1
    said = [HOST, (b"content-length", b"1")]
    assert b"Transfer-Encoding" not in upstream_head("POST", b"/", b"", said, PLAN, is_chunked=True)


def test_old_http_has_no_chunks() -> None:
    """A proxy of HTTP/1.0 may have passed on Transfer-Encoding without reading it (RFC 9112 §6.1)."""
    headers = [HOST, (b"transfer-encoding", b"chunked")]
    assert upstream_head("POST", b"/", b"", headers, PLAN, version="1.1")
    with pytest.raises(InvalidRequest):
        upstream_head("POST", b"/", b"", headers, PLAN, version="1.0")


@pytest.mark.parametrize("version", ["1.0", "1.1", "2"])
def test_via_names_the_version_that_was_received(version: str) -> None:
    """RFC 9110 §7.6.3: the protocol is that of the request as it came."""
    head = upstream_head("GET", b"/", b"", [HOST], PLAN, version=version)
    assert head.startswith(b"GET / HTTP/1.1\r\n")
    assert b"\r\nVia: %b greenroom\r\n" % version.encode() in head


@pytest.mark.parametrize("method", ["get", "", "G T", "GET\r\n", "G" * 33, "G\u20ac", "-GET"])
def test_no_method(method: str) -> None:
    """A method is a short word in capital letters: some servers read small ones as the same, others don't."""
    with pytest.raises(InvalidRequest):
        sent([HOST], method=method)


@pytest.mark.parametrize("method", ["CONNECT", "TRACE"])
def test_methods_that_go_to_no_actor(method: str) -> None:
    """No tunnel to anywhere, and nothing that tells a script which cookies it may not see."""
    with pytest.raises(MethodNotAllowed):
        sent([HOST], method=method)


@pytest.mark.parametrize("method", ["PURGE", "M-SEARCH", "VERSION-CONTROL", "FOO_2"])
def test_methods_of_all_kinds_pass(method: str) -> None:
    """Extension methods are the Actor's business."""
    assert upstream_head(method, b"/", b"", [HOST], PLAN).startswith(method.encode() + b" / HTTP/1.1\r\n")


def test_via_is_added() -> None:
    """Those who passed the request on before us stay, in order."""
    vias = [(b"via", b"1.0 fred, 1.1 greenroom"), (b"Via", b"1.1 p.example (Apache/1.1)")]
    assert sent([HOST, *vias]) == [HOST, *((b"via", value) for _, value in vias), *OURS]


@pytest.mark.parametrize(
    ("vias", "loops"),
    [
        pytest.param([b"1.1 greenroom"] * 10, False, id="ten times"),
        pytest.param([b"1.1 greenroom"] * 11, True, id="eleven times"),
        pytest.param([b", ".join([b"1.1 greenroom"] * 11)], True, id="in one header"),
        pytest.param([b"1.1 a,HTTP/2  GreenRoom (x)\t,"] * 11, True, id="oddly spelled"),
        pytest.param([b"1.1 greenrooms, 1.1 a (greenroom), greenroom, 1.1 greenroom.example"] * 11, False, id="others"),
    ],
)
def test_loops_are_refused(vias: list[bytes], loops: bool) -> None:
    """A request that has come through Greenroom more than ten times goes round in a circle."""
    headers = [HOST, *((b"via", via) for via in vias)]
    if loops:
        with pytest.raises(LoopDetected):
            sent(headers)
    else:
        assert len(sent(headers)) == len(headers) + len(OURS)


@given(
    st.lists(st.tuples(st.binary(max_size=12), st.binary(max_size=12)), max_size=6),
    st.binary(max_size=20),
    st.binary(max_size=20),
)
def test_no_input_adds_a_line(headers: Headers, path: bytes, query: bytes) -> None:
    """Whatever the server passed on: a refusal, or one head with as many lines as headers were meant."""
    try:
        head = upstream_head("GET", b"/" + path, query, headers, PLAN)
    except GreenroomError:
        return
    assert head.endswith(b"\r\n\r\n")
    assert head.count(b"\r\n\r\n") == 1
    assert head.count(b"\n") == head.count(b"\r\n") <= len(headers) + len(OURS) + 3


def test_upgrade_head() -> None:
    """The Actor's handshake: our key, no extensions, the client's subprotocols, Origin and cookies."""
    headers = [
        HOST, (b"upgrade", b"websocket"), (b"connection", b"Upgrade"), (b"sec-websocket-key", b"theirs"),
        (b"sec-websocket-version", b"13"), (b"sec-websocket-extensions", b"permessage-deflate"),
        (b"sec-websocket-protocol", b"b, a"), (b"origin", b"http://o"), (b"cookie", b"c=1"),
        (b"authorization", b"Bearer t"), (b"content-length", b"0"), (b"transfer-encoding", b"chunked"),
    ]  # fmt: skip
    plan = replace(PLAN, credentials=Credentials(token="t", in_authorization=True))
    head = upgrade_head(b"/ws%2F", b"token=t&a=", headers, plan, b"ours")
    lines = head.split(b"\r\n")
    assert lines[0] == b"GET /ws%2F?a= HTTP/1.1"
    assert lines[2:5] == [b"sec-websocket-protocol: b, a", b"origin: http://o", b"cookie: c=1"]
    assert lines[5:9] == [
        b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: ours",
    ]  # fmt: skip
    assert lines[-4:] == [b"Via: 1.1 greenroom", b"X-Actor-Request-ID: fresh", b"", b""]
    assert b"theirs" not in head
    assert b"Bearer" not in head


@pytest.mark.parametrize(
    "name",
    ["connection", "keep-alive", "proxy-authenticate", "transfer-encoding", "trailer", "upgrade", "te", "x-named"],
)
def test_what_never_reaches_the_caller(name: str) -> None:
    """Hop-by-hop headers of the Actor and those that its Connection names."""
    headers = [(b"x", b"1"), (name.encode(), b"x-named"), (b"connection", b"x-named, content-length"), (b"y", b"")]
    assert answer_headers([*headers, (b"content-length", b"1")], PLAN) == [
        (b"x", b"1"), (b"y", b""), (b"content-length", b"1"),
    ]  # fmt: skip


def test_answers_of_the_path_form_are_sandboxed() -> None:
    """No cookie, nothing that speaks for the whole host, and a sandbox."""
    plan = replace(PLAN, is_sandboxed=True)
    headers = [(b"set-cookie", b"a=1"), (b"Clear-Site-Data", b'"*"'), (b"strict-transport-security", b"max-age=1")]
    assert answer_headers([*headers, (b"x", b"1")], plan) == [(b"x", b"1"), (b"content-security-policy", b"sandbox")]


def test_the_plan_adds_headers() -> None:
    """Server-Timing and the like come last."""
    plan = replace(PLAN, answer_headers=lambda: [(b"server-timing", b"held;dur=1")])
    assert answer_headers([(b"server-timing", b"db")], plan)[1] == (b"server-timing", b"held;dur=1")


@pytest.mark.parametrize(
    ("cookie", "expected"),
    [
        pytest.param(b"a=1", b"a=1", id="no attributes"),
        pytest.param(b"a=1; Path=/; HttpOnly", b"a=1; Path=/; HttpOnly", id="other attributes"),
        pytest.param(b"a=1; Domain=localhost; Path=/", b"a=1; Path=/", id="a wider domain"),
        pytest.param(b"a=1;domain = .LOCALHOST", b"a=1", id="a wider domain, oddly spelled"),
        pytest.param(b"a=1; Domain=bob--hello.localhost", b"a=1; Domain=bob--hello.localhost", id="the very host"),
        pytest.param(b"a=1; Domain=.Bob--Hello.localhost", b"a=1; Domain=.Bob--Hello.localhost", id="with a dot"),
        pytest.param(b"a=1; Domain=localhost; Domain=localhost.", b"a=1", id="several"),
        pytest.param(b"domain=x; Secure", b"domain=x; Secure", id="a cookie of that name"),
        pytest.param(b"a=1; Domain=", b"a=1", id="an empty domain"),
    ],
)
def test_cookies_stay_with_their_host(cookie: bytes, expected: bytes) -> None:
    """An Actor can't set a cookie for a domain wider than its host."""
    assert answer_headers([(b"Set-Cookie", cookie), (b"set-cookie", b"b=2")], PLAN) == [
        (b"set-cookie", expected),
        (b"set-cookie", b"b=2"),
    ]


def test_accept_headers() -> None:
    """Of a 101 only what is not the handshake itself goes with ours."""
    headers = [
        (b"upgrade", b"websocket"), (b"connection", b"Upgrade"), (b"sec-websocket-accept", b"x"),
        (b"sec-websocket-protocol", b"a"), (b"set-cookie", b"a=1"), (b"content-length", b"0"), (b"x", b"1"),
    ]  # fmt: skip
    assert accept_headers(headers, PLAN) == [(b"set-cookie", b"a=1"), (b"x", b"1")]
