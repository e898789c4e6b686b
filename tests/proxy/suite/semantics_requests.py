"""Scenes: what of a request reaches the Actor."""

from __future__ import annotations

import gzip

from proxy.suite.recorder import Turn
from proxy.suite.scenes import (
    OK,
    ask,
    is_in_step,
    only_request,
    other_door,
    own_scene,
    plays,
    request_of,
    scene,
    seen_of,
)
from proxy.suite.stage import Door

# What a gateway adds of itself, in no order that matters here.
_ADDED = (b"x-forwarded-", b"forwarded", b"x-actor-request-id", b"via", b"connection")


@scene
def order_and_duplicates_of_headers(door: Door) -> None:
    """Headers reach the Actor in the order in which they came, those that come twice twice."""
    sent = (b"X-B: 1", b"Accept: a", b"X-A: 2", b"X-B: 3", b"Accept: b", b"X-B: 1")
    seen = seen_of(door, *sent)
    got = [(name.lower(), value) for name, value in seen.headers if not name.lower().startswith((*_ADDED, b"host"))]
    assert got == [(name.lower(), value) for name, _, value in (line.partition(b": ") for line in sent)]


@scene
def spelling_of_header_names(door: Door) -> None:
    """Names reach the Actor as they were written."""
    seen = seen_of(door, b"x-lower: 1", b"X-UPPER: 2", b"X-mIxEd: 3")
    assert {b"x-lower", b"X-UPPER", b"X-mIxEd"} <= {name for name, _ in seen.headers}


def _keeps_target(target: bytes) -> None:
    def play(door: Door) -> None:
        seen = seen_of(door, target=target)
        assert seen.target == target

    play.__name__ = f"raw_target_{target.decode('latin-1')}".replace("_", " ")
    play.__doc__ = "The target reaches the Actor byte for byte."
    scene(play)


for _target in (
    b"/a%2Fb%23%3F/%E4//c", b"/a?x=&x=1&y&z=%26", b"/../a/./b", b"/%", b"/%zz", b"//a//", b"/a?", b"/?", b"/a??b",
    b"/a;b=c?d;e",
    b"/a?b=/c?d", b"/'()*!$&+,=:@", b"/a?xtoken=1", b"/%74oken", b"/a?q=%20+%2B", b'/a"b<c>{d}|e^`',
    b"/" + b"long/" * 1000,
):  # fmt: skip
    _keeps_target(_target)


@scene
def hop_by_hop_headers_stay_here(door: Door) -> None:
    """Nothing that belongs to the caller's connection reaches the Actor."""
    seen = seen_of(
        door, b"Connection: keep-alive", b"Keep-Alive: timeout=5", b"Proxy-Connection: keep-alive",
        b"Proxy-Authorization: Basic x",
        b"TE: trailers", b"Trailer: X-T", b"Proxy-Authenticate: Basic",
    )  # fmt: skip
    names = {name.lower() for name, _ in seen.headers}
    assert not names & {
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"proxy-authenticate",
    }
    assert b"connection" not in names or seen.one(b"connection").lower() in (b"keep-alive", b"close")  # type: ignore[union-attr]


@scene
def what_connection_names_stays_here(door: Door) -> None:
    """A header that Connection names is for the next hop only."""
    seen = seen_of(door, b"X-Gone: 1", b"Connection: x-gone, X-AWAY", b"X-Away: 2", b"X-Stays: 3")
    names = {name.lower() for name, _ in seen.headers}
    assert b"x-stays" in names
    assert not names & {b"x-gone", b"x-away"}


@scene
def via_is_added(door: Door) -> None:
    """The Actor sees that there was a gateway (RFC 9110 §7.6.3)."""
    assert [value.split(b" ")[0] for value in seen_of(door).values(b"via")] == [b"1.1"]


@scene
def via_of_others_is_kept(door: Door) -> None:
    """Those before it stay, in order."""
    values = b", ".join(seen_of(door, b"Via: 1.0 fred, 1.1 p.example.net").values(b"via"))
    assert values.startswith(b"1.0 fred, 1.1 p.example.net, 1.1 ")


@own_scene
def a_loop_is_refused(door: Door) -> None:
    """A request that has come through Greenroom more than ten times goes round in a circle: 508."""
    answer = ask(door, b"Via: " + b", ".join([b"1.1 greenroom"] * 11))
    assert answer.status == 508, answer
    assert door.recorder.requests == []


@scene
def forwarded_headers_of_a_stranger_are_not_believed(door: Door) -> None:
    """Whoever is no trusted proxy can't say where he comes from."""
    seen = seen_of(
        door, b"X-Forwarded-For: 6.6.6.6", b"X-Forwarded-Host: evil.example", b"X-Forwarded-Proto: https",
        b"Forwarded: for=6.6.6.6"
    )  # fmt: skip
    assert seen.one(b"x-forwarded-for") == b"127.0.0.1"
    assert seen.one(b"x-forwarded-host") == door.host
    assert seen.one(b"x-forwarded-proto") == b"http"
    assert b"6.6.6.6" not in (seen.one(b"forwarded") or b"")


@scene
def forwarded_says_who_asked(door: Door) -> None:
    """RFC 7239: for, host and proto."""
    said = seen_of(door).one(b"forwarded")
    assert said is not None
    assert {part.partition(b"=")[0] for part in said.split(b";")} == {b"for", b"host", b"proto"}
    assert b"for=127.0.0.1" in said


@own_scene
def a_trusted_proxy_is_believed(door: Door) -> None:
    """The address and the scheme that a trusted proxy tells are the caller's."""
    door = other_door(door, trusted_proxies=("127.0.0.0/8",))
    seen = seen_of(door, b"X-Forwarded-For: 203.0.113.7", b"X-Forwarded-Proto: https")
    assert seen.one(b"x-forwarded-for") == b"203.0.113.7, 127.0.0.1"
    assert seen.one(b"x-forwarded-proto") == b"https"
    assert (seen.one(b"forwarded") or b"").startswith(b"for=203.0.113.7;")


@own_scene
def what_a_caller_told_a_trusted_proxy_is_not_believed(door: Door) -> None:
    """Of a chain only the end is believed, up to the first address that is not trusted."""
    door = other_door(door, trusted_proxies=("127.0.0.0/8",))
    seen = seen_of(door, b"X-Forwarded-For: 6.6.6.6, 203.0.113.7, 127.0.0.9")
    assert seen.one(b"x-forwarded-for") == b"203.0.113.7, 127.0.0.9, 127.0.0.1"


@own_scene
def a_trusted_proxy_may_say_it_in_two_lines(door: Door) -> None:
    """Two lines of X-Forwarded-For are one list."""
    door = other_door(door, trusted_proxies=("127.0.0.0/8",))
    seen = seen_of(door, b"X-Forwarded-For: 6.6.6.6", b"X-Forwarded-For: 203.0.113.7")
    assert seen.one(b"x-forwarded-for") == b"203.0.113.7, 127.0.0.1"


@own_scene
def each_request_has_an_id_of_its_own(door: Door) -> None:
    """The id is fresh, only Greenroom's, and the same in the answer."""
    ids = []
    with door.connect() as client:
        for _ in range(3):
            client.send(request_of(door, b"X-Actor-Request-ID: forged"))
            ids.append(client.final().one(b"x-actor-request-id"))
    assert ids == [request.message.one(b"x-actor-request-id") for request in door.recorder.requests]
    assert len({*ids, b"forged", None}) == 5


@own_scene
def a_probe_of_readiness_can_not_be_forged(door: Door) -> None:
    """The header that marks Greenroom's own probes is dropped."""
    seen = seen_of(door, b"X-Apify-Container-Server-Readiness-Probe: 1")
    assert seen.values(b"x-apify-container-server-readiness-probe") == []


@scene
def host_is_kept(door: Door) -> None:
    """With its port and its letter case, once."""
    seen = seen_of(door, host=b"@HOST@:81".replace(b"@HOST@", door.host.upper()))
    assert seen.values(b"host") == [door.host.upper() + b":81"]


@scene
def options_for_the_whole_server(door: Door) -> None:
    """``OPTIONS *`` reaches the Actor as such."""
    assert seen_of(door, method=b"OPTIONS", target=b"*").target == b"*"


@scene
def options_of_a_path(door: Door) -> None:
    """OPTIONS is a method like others."""
    seen = seen_of(door, method=b"OPTIONS")
    assert (seen.method, seen.target) == (b"OPTIONS", b"/x")


@scene
def head_reaches_the_actor_as_head(door: Door) -> None:
    """And its answer has no body."""
    with door.connect() as client:
        client.send(request_of(door, method=b"HEAD"))
        answer = client.final(b"HEAD")
        assert (answer.status, answer.one(b"content-length")) == (200, b"2")
        is_in_step(door, client)
    assert door.recorder.requests[0].message.method == b"HEAD"


@scene
def no_framing_is_made_up(door: Door) -> None:
    """A request without a body has no Content-Length and no Transfer-Encoding at the Actor either."""
    seen = seen_of(door, method=b"DELETE")
    assert seen.values(b"content-length") == seen.values(b"transfer-encoding") == []


@scene
def an_empty_body_stays_an_empty_body(door: Door) -> None:
    """``Content-Length: 0`` says something."""
    assert seen_of(door, b"Content-Length: 0", method=b"POST").values(b"content-length") == [b"0"]


@scene
def a_length_stays_a_length(door: Door) -> None:
    """A body of known length is not chunked on the way."""
    seen = seen_of(door, b"Content-Length: 5", method=b"PUT", body=b"hello")
    assert (seen.values(b"content-length"), seen.values(b"transfer-encoding")) == ([b"5"], [])
    assert seen.body == b"hello"


@scene
def chunked_stays_chunked(door: Door) -> None:
    """A body of unknown length is not collected first."""
    seen = seen_of(door, b"Transfer-Encoding: chunked", method=b"PATCH", body=b"5\r\nhello\r\n0\r\n\r\n")
    assert (seen.values(b"content-length"), seen.values(b"transfer-encoding")) == ([], [b"chunked"])
    assert seen.body == b"hello"


@scene
def trailers_reach_the_actor(door: Door) -> None:
    """Trailers of a request's body pass."""
    seen = seen_of(
        door, b"Transfer-Encoding: chunked",
        b"Trailer: X-Sum", method=b"POST", body=b"5\r\nhello\r\n0\r\nX-Sum: abc\r\n\r\n"
    )  # fmt: skip
    assert [(name.lower(), value) for name, value in seen.trailers] == [(b"x-sum", b"abc")]


@scene
def a_chunk_passes_before_the_next_comes(door: Door) -> None:
    """A request's body streams."""

    async def script(turn: Turn) -> None:
        data = b""
        while b"first" not in data:
            data += await turn.some_body()
        first.open()
        while b"0\r\n\r\n" not in data:
            data += await turn.some_body()
        turn.request.is_whole = True
        await turn.write(OK)

    first = door.recorder.gate()
    plays(door, script)
    with door.connect() as client:
        client.send(request_of(door, b"Transfer-Encoding: chunked", method=b"POST") + b"5\r\nfirst\r\n")
        first.wait(client.sock.gettimeout() or 0)
        client.send(b"6\r\nsecond\r\n0\r\n\r\n")
        assert client.final().status == 200


@scene
def cookies_come_as_they_were(door: Door) -> None:
    """In as many lines as they were sent."""
    assert seen_of(door, b"Cookie: a=1; b=2", b"Cookie: c=3").values(b"cookie") == [b"a=1; b=2", b"c=3"]


@scene
def conditions_and_ranges_reach_the_actor(door: Door) -> None:
    """Range and the If- headers are between the two ends."""
    lines = (
        b"Range: bytes=0-4",
        b'If-Range: "e"',
        b'If-None-Match: "a", W/"b"',
        b"If-Modified-Since: Sat, 29 Oct 1994 19:43:31 GMT",
    )
    seen = seen_of(door, *lines)
    for line in lines:
        name, _, value = line.partition(b": ")
        assert seen.values(name.lower()) == [value]


@scene
def a_compressed_body_goes_up_untouched(door: Door) -> None:
    """Content codings are between the two ends."""
    body = gzip.compress(b"hello" * 100)
    seen = seen_of(door, b"Content-Encoding: gzip", b"Content-Length: %d" % len(body), method=b"POST", body=body)
    assert (seen.body, seen.one(b"content-encoding")) == (body, b"gzip")


@scene
def accept_encoding_reaches_the_actor(door: Door) -> None:
    """It is the Actor who chooses."""
    assert seen_of(door, b"Accept-Encoding: br;q=1, gzip").one(b"accept-encoding") == b"br;q=1, gzip"


@scene
def a_head_that_comes_byte_by_byte(door: Door) -> None:
    """Where a head is cut makes no difference."""
    data = request_of(door, b"X-A: b", b"Content-Length: 5", method=b"POST") + b"hello"
    with door.connect() as client:
        client.send(data, pieces=range(1, len(data)))
        assert client.final().status == 200
        is_in_step(door, client)
    assert door.recorder.requests[0].message.body == b"hello"


@scene
def a_chunked_body_that_comes_byte_by_byte(door: Door) -> None:
    """Where a chunk is cut makes no difference."""
    data = (
        request_of(door, b"Transfer-Encoding: chunked", method=b"POST")
        + b"5\r\nhello\r\n10\r\n"
        + b"w" * 16
        + b"\r\n0\r\n\r\n"
    )
    with door.connect() as client:
        client.send(data, pieces=range(1, len(data)))
        assert client.final().status == 200
        is_in_step(door, client)
    assert door.recorder.requests[0].message.body == b"hello" + b"w" * 16


@scene
def requests_that_differ_only_in_what_changes(door: Door) -> None:
    """Trace ids, cookies, tags and lengths of one request never show in another."""
    with door.connect() as client:
        for number in range(20):
            body = b"b" * number
            client.send(
                request_of(
                    door, b"traceparent: 00-%032d-%016d-01" % (number, number), b"Cookie: c=%d" % number, b"Accept: a",
                    b'If-None-Match: "%d"' % number, b"X-Request-Id: r%d" % number,
                    b"Content-Length: %d" % number, method=b"POST",
                )
                + body
            )  # fmt: skip
            assert client.final().status == 200
    assert len(door.recorder.requests) == 20
    for number, request in enumerate(door.recorder.requests):
        seen = request.message
        assert seen.values(b"traceparent") == [b"00-%032d-%016d-01" % (number, number)]
        assert (seen.values(b"cookie"), seen.values(b"x-request-id")) == ([b"c=%d" % number], [b"r%d" % number])
        assert (seen.values(b"if-none-match"), seen.body) == ([b'"%d"' % number], b"b" * number)


@scene
def two_callers_with_the_same_head(door: Door) -> None:
    """What one caller's connection has learnt is not taken for another's: methods and bodies stay apart."""
    with door.connect() as first, door.connect() as second:
        for client, body in ((first, b"1111"), (second, b"2222"), (first, b"3333"), (second, b"4444")):
            client.send(request_of(door, b"Content-Length: 4", method=b"POST") + body)
            assert client.final().status == 200
    assert [request.message.body for request in door.recorder.requests] == [b"1111", b"2222", b"3333", b"4444"]


@scene
def a_request_without_any_other_header(door: Door) -> None:
    """Host alone is enough, the same block again too."""
    with door.connect() as client:
        for _ in range(3):
            client.send(request_of(door))
            assert client.final().status == 200


@scene
def a_request_of_http_1_0(door: Door) -> None:
    """It is answered without chunks, and the connection ends."""
    with door.connect() as client:
        client.send(request_of(door, minor=0))
        answer = client.final()
        assert (answer.status, answer.body, answer.values(b"transfer-encoding")) == (200, b"/x", [])
        assert client.rest() == b""
    only_request(door)
