"""Scenes: what of an answer reaches the caller."""

from __future__ import annotations

import gzip

from proxy.suite.recorder import Turn
from proxy.suite.scenes import OK, ask, is_in_step, own_scene, plays, request_of, says, scene
from proxy.suite.stage import Door
from proxy.suite.wire import Message

_HEAD = b"HTTP/1.1 200 OK\r\n"


def _answer(door: Door, raw: bytes, *lines: bytes, method: bytes = b"GET", closes: bool = False) -> Message:
    """What becomes of the Actor's *raw* answer; the caller's connection has to stay in step."""
    says(door, raw, closes=closes)
    with door.connect() as client:
        client.send(request_of(door, *lines, method=method))
        answer = client.final(method)
        if answer.keeps_alive:
            is_in_step(door, client)
        else:
            assert client.rest() == b""
        return answer


@scene
def order_and_duplicates_of_an_answers_headers(door: Door) -> None:
    """Headers reach the caller in order, those that come twice twice."""
    raw = _HEAD + b"X-B: 1\r\nSet-Cookie: a=1\r\nX-A: \xe4\r\nSet-Cookie: b=2\r\nX-B: 2\r\nContent-Length: 0\r\n\r\n"
    answer = _answer(door, raw)
    kept = [(name.lower(), value) for name, value in answer.headers if name.lower() in (b"x-a", b"x-b", b"set-cookie")]
    assert kept == [(b"x-b", b"1"), (b"set-cookie", b"a=1"), (b"x-a", b"\xe4"), (b"set-cookie", b"b=2"), (b"x-b", b"2")]


@scene
def hop_by_hop_headers_of_an_answer_stay_here(door: Door) -> None:
    """Nothing that belongs to the Actor's connection reaches the caller."""
    answer = _answer(
        door,
        _HEAD + b"Connection: X-Gone, keep-alive\r\nX-Gone: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\n"
        b"Proxy-Connection: keep-alive\r\nUpgrade: h2c\r\nX-Stays: 1\r\nContent-Length: 0\r\n\r\n",
    )
    names = {name.lower() for name, _ in answer.headers}
    assert b"x-stays" in names
    assert not names & {b"x-gone", b"keep-alive", b"proxy-authenticate", b"proxy-connection", b"upgrade"}


@scene
def the_reason_phrase_passes(door: Door) -> None:
    """What stands behind the status is the Actor's."""
    assert _answer(door, b"HTTP/1.1 200 Quite Fine\r\nContent-Length: 0\r\n\r\n").first == b"HTTP/1.1 200 Quite Fine"


@scene
def a_status_of_the_actors_own(door: Door) -> None:
    """A status that nobody knows passes."""
    assert _answer(door, b"HTTP/1.1 299 Mine\r\nContent-Length: 2\r\n\r\nok").status == 299


@scene
def date_and_server_are_the_actors(door: Door) -> None:
    """They pass, and none is added to them."""
    answer = _answer(
        door, _HEAD + b"Date: Sat, 29 Oct 1994 19:43:31 GMT\r\nServer: mine/1\r\nContent-Length: 0\r\n\r\n"
    )
    assert answer.values(b"date") == [b"Sat, 29 Oct 1994 19:43:31 GMT"]
    assert answer.values(b"server") == [b"mine/1"]


def _status_without_body(status: int) -> None:
    def play(door: Door) -> None:
        answer = _answer(door, b'HTTP/1.1 %d No Body\r\nETag: "e"\r\n\r\n' % status)
        assert (answer.status, answer.body, answer.values(b"transfer-encoding")) == (status, b"", [])
        assert answer.one(b"etag") == b'"e"'

    play.__name__ = f"an answer of {status} has no body"
    play.__doc__ = "RFC 9112 §6.3; the next answer is not taken for its body."
    scene(play)


for _status in (204, 304):
    _status_without_body(_status)


@scene
def a_304_keeps_the_length_it_speaks_of(door: Door) -> None:
    """It is that of the answer to a GET without the condition."""
    answer = _answer(
        door, b'HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\nETag: "e"\r\n\r\n', b'If-None-Match: "e"'
    )
    assert (answer.status, answer.body, answer.values(b"content-length")) == (304, b"", [b"1234"])


@scene
def a_head_answer_keeps_the_length_it_speaks_of(door: Door) -> None:
    """And has no body."""
    answer = _answer(door, _HEAD + b"Content-Length: 1234\r\n\r\n", method=b"HEAD")
    assert (answer.body, answer.values(b"content-length")) == (b"", [b"1234"])


@scene
def a_head_answer_that_would_be_chunked(door: Door) -> None:
    """Has no chunks either."""
    assert _answer(door, _HEAD + b"Transfer-Encoding: chunked\r\n\r\n", method=b"HEAD").body == b""


@scene
def a_head_answer_without_a_length(door: Door) -> None:
    """The end of the connection is not waited for."""
    assert _answer(door, _HEAD + b"X-A: b\r\n\r\n", method=b"HEAD").one(b"x-a") == b"b"


@scene
def a_part_of_a_file(door: Door) -> None:
    """206 with Content-Range passes untouched."""
    answer = _answer(
        door,
        b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-4/10\r\nContent-Length: 5\r\n\r\nhello",
        b"Range: bytes=0-4",
    )
    assert (answer.status, answer.one(b"content-range"), answer.body) == (206, b"bytes 0-4/10", b"hello")


@scene
def a_range_that_is_none(door: Door) -> None:
    """416 passes with what it says."""
    answer = _answer(
        door, b"HTTP/1.1 416 No\r\nContent-Range: bytes */10\r\nContent-Length: 0\r\n\r\n", b"Range: bytes=20-"
    )
    assert (answer.status, answer.one(b"content-range")) == (416, b"bytes */10")


@scene
def a_compressed_answer_comes_down_untouched(door: Door) -> None:
    """Content codings are between the two ends."""
    body = gzip.compress(b"hello" * 100)
    answer = _answer(door, _HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert (answer.body, answer.one(b"content-encoding")) == (body, b"gzip")


@scene
def a_chunked_answer(door: Door) -> None:
    """Its data passes, whatever its chunks were."""
    answer = _answer(door, _HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n001\r\n!\r\n0\r\n\r\n")
    assert (answer.body, answer.is_whole) == (b"hello!", True)


@scene
def trailers_reach_the_caller(door: Door) -> None:
    """Trailers of an answer pass."""
    raw = _HEAD + b"Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: abc\r\n\r\n"
    answer = _answer(door, raw, b"TE: trailers", b"Connection: TE")
    assert [(name.lower(), value) for name, value in answer.trailers] == [(b"x-sum", b"abc")]


@scene
def trailers_that_must_not_reach_the_caller(door: Door) -> None:
    """Framing, routing and cookies in trailers are dropped; the answer is whole."""
    trailers = b"Content-Length: 9\r\nTransfer-Encoding: chunked\r\nConnection: close\r\nHost: x\r\n"
    answer = _answer(door, _HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n" + trailers + b"\r\n")
    assert (answer.body, answer.is_whole) == (b"hello", True)
    assert not {name.lower() for name, _ in answer.trailers} & {
        b"content-length",
        b"transfer-encoding",
        b"connection",
        b"host",
    }


@scene
def an_answer_until_the_end_of_its_connection(door: Door) -> None:
    """A body without a length is whole when the Actor closes, and the caller can tell where it ends."""
    answer = _answer(door, _HEAD + b"X-A: b\r\n\r\n" + b"hello" * 1000, closes=True)
    assert (answer.body, answer.is_whole) == (b"hello" * 1000, True)


@scene
def an_answer_of_http_1_0(door: Door) -> None:
    """An old Actor's answer passes; its connection is not used again, the caller's is."""
    says(door, b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello")
    with door.connect() as client:
        client.send(request_of(door))
        answer = client.final()
        assert (answer.first[:8], answer.body) == (b"HTTP/1.1", b"hello")
        is_in_step(door, client)
    assert len({request.connection.number for request in door.recorder.requests}) == 2


@scene
def an_actor_that_closes_after_its_answer(door: Door) -> None:
    """The caller's connection is not closed for that."""
    says(door, _HEAD + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello", closes=True)
    with door.connect() as client:
        client.send(request_of(door))
        answer = client.final()
        assert (answer.body, answer.keeps_alive) == (b"hello", True)
        is_in_step(door, client)


@scene
def a_chunked_answer_to_http_1_0(door: Door) -> None:
    """Whoever does not know chunks gets none."""
    says(door, _HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")
    with door.connect() as client:
        client.send(request_of(door, minor=0))
        answer = client.final()
        assert (answer.body, answer.values(b"transfer-encoding")) == (b"hello world", [])


@scene
def early_hints(door: Door) -> None:
    """103 passes with its links, before the answer."""
    says(door, b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n", OK)
    with door.connect() as client:
        client.send(request_of(door))
        hints, answer = client.answer(), client.answer()
        assert (hints.status, hints.one(b"link"), answer.status) == (103, b"</a.css>; rel=preload", 200)
        is_in_step(door, client)


@scene
def several_interim_answers(door: Door) -> None:
    """Each passes, in order and in one read with the answer too."""
    says(
        door,
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <1>\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n"
        + OK,
    )
    with door.connect() as client:
        client.send(request_of(door))
        assert [client.answer().status for _ in range(4)] == [102, 103, 103, 200]
        is_in_step(door, client)


@scene
def interim_answers_never_reach_http_1_0(door: Door) -> None:
    """RFC 9110 §15.2: such a caller knows none."""
    says(door, b"HTTP/1.1 103 Early Hints\r\nLink: <1>\r\n\r\n" + OK)
    with door.connect() as client:
        client.send(request_of(door, minor=0))
        assert client.answer().status == 200


@scene
def continue_from_end_to_end(door: Door) -> None:
    """The Actor decides when the body is sent: its 100 reaches the caller, then the body the Actor."""

    async def script(turn: Turn) -> None:
        assert turn.message.one(b"expect") == b"100-continue"
        asked.open()
        await go.opened()
        await turn.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await turn.body()
        await turn.write(OK)

    asked, go = door.recorder.gate(), door.recorder.gate()
    plays(door, script)
    with door.connect() as client:
        client.send(request_of(door, b"Expect: 100-continue", b"Content-Length: 5", method=b"POST"))
        asked.wait()
        go.open()
        assert client.answer().status == 100
        client.send(b"hello")
        assert client.answer().status == 200
        is_in_step(door, client)
    assert door.recorder.requests[0].message.body == b"hello"


def _refused_expectation(status: int, name: str) -> None:
    def play(door: Door) -> None:
        async def script(turn: Turn) -> None:
            await turn.write(b"HTTP/1.1 %d No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno" % status)
            turn.close()

        plays(door, script)
        with door.connect() as client:
            client.send(request_of(door, b"Expect: 100-continue", b"Content-Length: 5000000", method=b"POST"))
            answer = client.answer()
            assert (answer.status, answer.body) == (status, b"no"), answer

    play.__name__ = name
    play.__doc__ = "The caller hears of it without having sent the body, and without a 100 before."
    scene(play)


_refused_expectation(417, "an expectation that the actor refuses")
_refused_expectation(413, "a body that the actor does not want")
_refused_expectation(401, "a body from somebody whom the actor does not know")


@scene
def a_caller_who_does_not_wait_for_continue(door: Door) -> None:
    """A body that comes at once is not held back, and no 100 comes after the answer."""
    with door.connect() as client:
        client.send(request_of(door, b"Expect: 100-continue", b"Content-Length: 5", method=b"POST") + b"hello")
        assert client.final().status == 200
        is_in_step(door, client)


@scene
def an_answer_before_the_body_has_come(door: Door) -> None:
    """A refusal in the middle of an upload reaches its caller whole, and says that the connection ends."""

    async def script(turn: Turn) -> None:
        await turn.some_body()
        await turn.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
        turn.close()

    plays(door, script)
    with door.connect() as client:
        client.send(request_of(door, b"Content-Length: 1000000", method=b"POST") + b"b" * 1000)
        answer = client.final()
        assert (answer.status, answer.body, answer.keeps_alive) == (413, b"big", False)
        assert client.rest() == b""


@scene
def an_answer_begun_before_the_body_has_come(door: Door) -> None:
    """Request and answer may go on at the same time."""

    async def script(turn: Turn) -> None:
        await turn.some_body()
        await turn.write(_HEAD + b"Content-Length: 10\r\n\r\nearly")
        begun.open()
        data = b""
        while b"late" not in data:
            data += await turn.some_body()
        await turn.write(b" late")
        turn.close()

    begun = door.recorder.gate()
    plays(door, script)
    with door.connect() as client:
        client.send(request_of(door, b"Content-Length: 9", method=b"POST") + b"early")
        begun.wait()
        head = client.head()
        while b"early" not in client.buffer:
            client._receive()
        client.send(b"late")
        assert client.body(head).body == b"early late"


@scene
def the_first_event_of_a_stream(door: Door) -> None:
    """Server-sent events: head and first event pass while the Actor holds the stream open."""

    async def script(turn: Turn) -> None:
        await turn.body()
        await turn.write(_HEAD + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        await event.opened()
        await turn.write(b"9\r\ndata: 1\n\n\r\n")
        await end.opened()
        await turn.write(b"0\r\n\r\n")

    event, end = door.recorder.gate(), door.recorder.gate()
    plays(door, script)
    with door.connect() as client:
        client.send(request_of(door))
        head = client.head()
        assert head.one(b"content-type") == b"text/event-stream"
        event.open()
        while b"data: 1\n\n" not in client.buffer:
            assert client._receive()
        end.open()
        assert client.body(head).body == b"data: 1\n\n"
        is_in_step(door, client)


@scene
def a_cookie_of_the_actors_own_host(door: Door) -> None:
    """A cookie without a domain passes as it is, with all its attributes."""
    cookie = b"a=1; Path=/; Expires=Sat, 29 Oct 1994 19:43:31 GMT; HttpOnly; SameSite=Lax"
    assert _answer(door, _HEAD + b"Set-Cookie: " + cookie + b"\r\nContent-Length: 0\r\n\r\n").values(b"set-cookie") == [
        cookie
    ]


@own_scene
def a_cookie_for_more_than_the_actors_host(door: Door) -> None:
    """Its domain is cut: it stays with the host that set it."""
    raw = (
        _HEAD + b"Set-Cookie: a=1; Domain=localhost; Path=/\r\nSet-Cookie: b=2; domain = .LOCALHOST\r\n"
        b"Set-Cookie: c=3; Domain=" + door.host + b"\r\nContent-Length: 0\r\n\r\n"
    )
    cookies = _answer(door, raw).values(b"set-cookie")
    assert [cookie.partition(b"=")[0] for cookie in cookies] == [b"a", b"b", b"c"]
    assert not any(b"domain" in cookie.lower() for cookie in cookies[:2])
    assert b"Path=/" in cookies[0]


@own_scene
def a_held_request_is_told_how_long(door: Door) -> None:
    """Server-Timing says what a cold start took; a warm answer has none of it."""
    with door.connect() as client:
        client.send(request_of(door))
        first = client.final()
        client.send(request_of(door))
        second = client.final()
    assert bool(first.values(b"server-timing")) == door.is_cold
    assert second.values(b"server-timing") == []


@scene
def answers_that_differ_only_in_what_changes(door: Door) -> None:
    """Dates, tags, cookies and lengths of one answer never show in another."""
    with door.connect() as client:
        for number in range(20):
            body = b"b" * number
            says(
                door,
                _HEAD + b"Date: Sat, 29 Oct 1994 19:43:%02d GMT\r\nETag: \"%d\"\r\nSet-Cookie: c=%d\r\n"
                b"X-Request-Id: r%d\r\nContent-Length: %d\r\n\r\n" % (number, number, number, number, number) + body,
            )  # fmt: skip
            client.send(request_of(door))
            answer = client.final()
            assert answer.values(b"date") == [b"Sat, 29 Oct 1994 19:43:%02d GMT" % number]
            assert (answer.values(b"etag"), answer.values(b"set-cookie")) == ([b'"%d"' % number], [b"c=%d" % number])
            assert (answer.values(b"x-request-id"), answer.body) == ([b"r%d" % number], body)


@scene
def an_answer_that_comes_byte_by_byte(door: Door) -> None:
    """Where an answer is cut makes no difference."""
    raw = b"HTTP/1.1 200 OK\r\nX-A: b\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"

    async def script(turn: Turn) -> None:
        await turn.body()
        for at in range(len(raw)):
            await turn.write(raw[at : at + 1])
            await turn.breathe()

    plays(door, script)
    with door.connect() as client:
        client.send(request_of(door))
        answer = client.final()
        assert (answer.body, answer.one(b"x-a")) == (b"hello", b"b")
        is_in_step(door, client)


@scene
def a_large_head_of_an_answer(door: Door) -> None:
    """30,000 bytes of headers pass."""
    answer = _answer(
        door, _HEAD + b"".join(b"X-%d: %s\r\n" % (n, b"v" * 1000) for n in range(30)) + b"Content-Length: 0\r\n\r\n"
    )
    assert len(answer.one(b"x-29") or b"") == 1000


@own_scene
def an_error_says_which_request_it_was(door: Door) -> None:
    """Greenroom's own errors carry the request id, too."""
    says(door, b"nonsense\r\n\r\n", closes=True)
    answer = ask(door)
    assert (answer.status, bool(answer.one(b"x-actor-request-id"))) == (502, True)
