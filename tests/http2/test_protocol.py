"""The HTTP/2 protocol class: bodies and credit both ways, ends of all kinds, limits."""

from __future__ import annotations

import asyncio

import pytest
from http2.rig import (
    CANCEL,
    ENHANCE_YOUR_CALM,
    GET,
    INTERNAL_ERROR,
    NO_ERROR,
    POST,
    Answer,
    Call,
    client_of,
    data,
    frame,
    more,
    serving,
    until,
)
from hyperframe.frame import HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

from gateway.dispatch import PREFACE
from gateway.http2.protocol import Http2
from gateway.proxy.splice.connections import Connections

WINDOW = 65_535


# -- what an app sees --------------------------------------------------------------------------------------------------


async def test_a_scope_tells_what_was_asked() -> None:
    """Host first, path raw and decoded, the cookies together; the version is that of HTTP/2."""
    fields = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/a%20b?c=%26"), (b":authority", b"x.localhost"),
              (b"cookie", b"a=1"), (b"accept", b"*/*"), (b"cookie", b"b=2")]  # fmt: skip
    async with serving() as server, client_of(server.port) as client:
        client.ask(fields)
        assert (await client.answer()).status == 200
        scope = server.app.calls[0].scope
    assert scope["headers"] == [(b"host", b"x.localhost"), (b"cookie", b"a=1; b=2"), (b"accept", b"*/*")]
    assert (scope["method"], scope["http_version"], scope["scheme"]) == ("GET", "2", "http")
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/a b", b"/a%20b", b"c=%26")
    assert scope["client"][0] == scope["server"][0] == "127.0.0.1"


async def test_a_request_without_a_body_is_whole_at_once() -> None:
    """An app that reads the body of a GET gets an empty one, and does not wait."""
    async with serving() as server, client_of(server.port) as client:
        client.ask()
        answer = await client.answer()
        assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize("size", [0, 1, 16_384, 16_385, WINDOW, WINDOW + 1, 1_000_000])
async def test_bodies_come_whole_both_ways(size: int) -> None:
    """Of any size, over as many windows as it takes."""
    body = bytes(index % 251 for index in range(size))
    async with serving() as server, client_of(server.port) as client:
        client.send(client.head(POST, ends=False))
        sent, allowed = 0, WINDOW
        while sent < size:
            # What the client may send: the first window, and the credit since, of stream and connection.
            allowed = WINDOW + min(client.credits.get(0, 0), client.credits.get(1, 0))
            if sent == allowed:
                before = dict(client.credits)
                await client.wait(lambda: client.credits != before, "credit")  # noqa: B023
                continue
            piece = body[sent : min(sent + 16_384, allowed, size)]
            client.send(data(piece))
            sent += len(piece)
        client.send(data(b"", ends=True))
        answer = await client.answer()
        assert answer.body == body


async def test_many_requests_at_once() -> None:
    """A hundred on one connection: each is answered with its own."""
    gate = asyncio.Event()

    async def wait(call: Call) -> None:
        await gate.wait()
        await call.answer(call.scope["raw_path"])

    async with serving(wait) as server, client_of(server.port) as client:
        for n in range(100):
            client.ask([*GET[:2], (b":path", b"/%d" % n), GET[3]], stream=2 * n + 1)
        await until(lambda: len(server.app.calls) == 100)
        gate.set()
        for n in range(100):
            assert (await client.answer(2 * n + 1)).body == b"/%d" % n


# -- credit ------------------------------------------------------------------------------------------------------------


async def test_a_body_that_nobody_reads_stops_its_own_stream_alone() -> None:
    """One window of it is taken, no more, while other requests of the connection come and go; then it goes on."""
    gate = asyncio.Event()

    async def script(call: Call) -> None:
        if call.scope["raw_path"] == b"/slow":
            await gate.wait()
        await call.answer(b"%d" % len(await call.body()))

    async with serving(script) as server, client_of(server.port) as client:
        client.send(client.head([POST[0], POST[1], (b":path", b"/slow"), POST[3]], ends=False))
        client.send(*(data(b"x" * 16_383) for _ in range(4)))
        await client.in_step()
        assert 1 not in client.credits  # none for this body
        assert client.credits[0] >= 32_768  # the others have theirs
        for stream in (3, 5):
            client.ask(POST, stream=stream, body=b"y" * 16_384)
            assert (await client.answer(stream)).body == b"16384"
        gate.set()
        await client.wait(lambda: 1 in client.credits, "credit for the rest")
        client.send(data(b"x", ends=True))
        assert (await client.answer()).body == b"65533"


async def test_an_answer_that_nobody_takes_is_not_kept_in_memory() -> None:
    """The app can send no more than the windows hold; it goes on as credit comes."""
    sent: list[int] = []

    async def endless(call: Call) -> None:
        await call.send({"type": "http.response.start", "status": 200, "headers": []})
        while len(sent) < 100:
            sent.append(1)
            await call.send({"type": "http.response.body", "body": b"x" * 16_384, "more_body": True})
        await call.send({"type": "http.response.body", "body": b""})

    async with serving(endless) as server, client_of(server.port) as client:
        client.gives_credit = False
        client.ask()
        await client.wait(lambda: len(client.answers[1].body) == WINDOW if 1 in client.answers else False)
        await client.in_step()
        assert len(sent) == 4
        client.send(WindowUpdateFrame(0, 10**7), WindowUpdateFrame(1, 1))  # of both, the smaller counts
        await client.wait(lambda: len(client.answers[1].body) == WINDOW + 1)
        await client.in_step()
        assert len(sent) <= 5
        client.send(WindowUpdateFrame(1, 10**7))
        assert len((await client.answer()).body) == 100 * 16_384


async def test_a_window_of_one_byte_is_kept_to() -> None:
    """6.9.2: what the client's SETTINGS allow, and not a byte more; a later change holds for streams that are open."""

    async def three(call: Call) -> None:
        await call.answer(b"abc")

    async with serving(three) as server, client_of(server.port) as client:
        client.gives_credit = False
        client.send(SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 1}))
        client.ask()
        await client.in_step()
        await client.wait(lambda: 1 in client.answers and client.answers[1].body == b"a")
        client.send(SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 2}))
        await client.wait(lambda: client.answers[1].body == b"ab")
        client.send(SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 0}))  # the window is now less than nothing
        client.send(WindowUpdateFrame(1, 2))
        await client.in_step()
        assert client.answers[1].body == b"ab"
        client.send(WindowUpdateFrame(1, 1))
        answer = await client.answer()
        assert (answer.body, answer.is_whole) == (b"abc", True)


# -- ends --------------------------------------------------------------------------------------------------------------


async def test_a_client_that_resets_its_request_is_gone_for_the_app() -> None:
    """While its other requests go on."""
    seen: list[str] = []

    async def script(call: Call) -> None:
        if call.scope["method"] == "POST":
            seen.append((await call.receive())["type"])
        await call.answer(b"here")

    async with serving(script) as server, client_of(server.port) as client:
        client.send(client.head(POST, ends=False), RstStreamFrame(1, CANCEL))
        await until(lambda: seen == ["http.disconnect"])
        client.ask(stream=3)
        assert (await client.answer(3)).body == b"here"


async def test_an_answer_that_waits_for_credit_ends_with_its_client() -> None:
    """Be it by a reset, be it by the end of the connection."""
    ended: list[bytes] = []

    async def big(call: Call) -> None:
        await call.answer(b"x" * 1_000_000)
        ended.append(call.scope["raw_path"])

    async with serving(big) as server:
        async with client_of(server.port) as client:
            client.gives_credit = False
            client.ask()
            client.ask(stream=3)
            await client.wait(lambda: sum(len(one.body) for one in client.answers.values()) == WINDOW)
            client.send(RstStreamFrame(1, CANCEL))
            await until(lambda: len(ended) == 1)
        await until(lambda: len(ended) == 2)


async def test_a_request_that_came_whole_is_whole_although_its_client_has_gone() -> None:
    """A process that reports its last word and exits has been heard."""
    gate, seen = asyncio.Event(), []

    async def late(call: Call) -> None:
        await gate.wait()
        seen.append(await call.body())
        seen.append((await call.receive())["type"])

    async with serving(late) as server:
        async with client_of(server.port) as client:
            client.ask(POST, body=b"my last word")
            await until(lambda: server.app.calls)
            await client.in_step()
        await server.empty()
        gate.set()
        await server.idle()
        assert seen == [b"my last word", "http.disconnect"]


@pytest.mark.parametrize("has_begun", [False, True])
async def test_what_an_app_does_not_finish_is_seen_to_be_broken(has_begun: bool) -> None:
    """Before its head 500 can be said; after it, only that the answer is cut. The connection goes on."""

    async def broken(call: Call) -> None:
        if len(server.app.calls) > 1:
            await call.answer()
            return
        if has_begun:
            await call.send({"type": "http.response.start", "status": 200, "headers": []})
            await call.send({"type": "http.response.body", "body": b"half", "more_body": True})

    async with serving(broken) as server, client_of(server.port) as client:
        client.ask()
        answer = await client.answer()
        if has_begun:
            assert (answer.body, answer.reset, answer.is_whole) == (b"half", INTERNAL_ERROR, False)
        else:
            assert (answer.status, answer.reset) == (500, None)
        client.ask(stream=3)
        assert (await client.answer(3)).status == 200


@pytest.mark.parametrize(
    ("length", "body"), [pytest.param(b"5", b"four", id="too short"), pytest.param(b"3", b"four", id="too long")]
)
async def test_an_answer_of_another_length_than_told_is_cut(length: bytes, body: bytes) -> None:
    """It never looks whole."""

    async def wrong(call: Call) -> None:
        await call.answer(body, headers=[(b"content-length", length)])

    async with serving(wrong) as server, client_of(server.port) as client:
        client.ask()
        answer = await client.answer()
        assert (answer.reset, answer.is_whole) == (INTERNAL_ERROR, False)


async def test_an_early_answer_ends_the_body_of_its_request() -> None:
    """RFC 9113 §8.1: whole, then a reset without an error; the rest is not read, and the connection goes on."""

    async def early(call: Call) -> None:
        await call.answer(b"too large", status=413)

    async with serving(early) as server, client_of(server.port) as client:
        client.send(client.head(POST, ends=False), data(b"x" * 10_000))
        answer = await client.answer()
        assert (answer.status, answer.body, answer.is_whole) == (413, b"too large", True)
        await client.wait(lambda: answer.reset == NO_ERROR)
        client.ask(stream=3)
        assert (await client.answer(3)).status == 413


@pytest.mark.parametrize(
    ("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304)], ids=["HEAD", "204", "304"]
)
async def test_answers_without_a_body(method: bytes, status: int) -> None:
    """Their headers pass, a length among them; whatever body an app has is left out."""

    async def script(call: Call) -> None:
        await call.answer(b"" if status == 304 else b"body", status, [(b"content-length", b"4"), (b"x-a", b"1")])

    async with serving(script) as server, client_of(server.port) as client:
        client.ask([(b":method", method), *GET[1:]])
        answer = await client.answer()
        assert (answer.status, answer.body, answer.is_whole) == (status, b"", True)
        assert answer.headers == {b"content-length": b"4", b"x-a": b"1"}


async def test_headers_of_the_connection_are_left_out_of_answers() -> None:
    """RFC 9113 §8.2.2; an app that was made for HTTP/1.1 says them."""

    async def script(call: Call) -> None:
        headers = [(b"Connection", b"close"), (b"Keep-Alive", b"timeout=5"), (b"Transfer-Encoding", b"chunked"),
                   (b"X-A", b"1")]  # fmt: skip
        await call.answer(b"", headers=headers)

    async with serving(script) as server, client_of(server.port) as client:
        client.ask()
        assert (await client.answer()).headers == {b"x-a": b"1"}


async def test_a_client_that_asks_first_is_told_to_go_on_when_its_body_is_wanted() -> None:
    """Expect: 100-continue."""
    async with serving() as server, client_of(server.port) as client:
        client.send(client.head([*POST, (b"expect", b"100-continue")], ends=False))
        await client.wait(lambda: 1 in client.answers and client.answers[1].interim == [100])
        client.send(data(b"x", ends=True))
        answer = await client.answer()
        assert (answer.status, answer.body, answer.interim) == (200, b"x", [100])


async def test_trailers_of_a_request_end_its_body() -> None:
    """ASGI has no word for them: they are not passed on."""
    async with serving() as server, client_of(server.port) as client:
        client.send(client.head(POST, ends=False), data(b"x"), client.head([(b"x-sum", b"1")]))
        assert (await client.answer()).body == b"x"


# -- goodbyes ----------------------------------------------------------------------------------------------------------


async def test_a_goodbye_loses_no_request() -> None:
    """What was taken is answered; what came later was not taken, as GOAWAY tells. Then the connection ends."""
    gate = asyncio.Event()

    async def wait(call: Call) -> None:
        await gate.wait()
        await call.answer(b"here")

    async with serving(wait, goodbye_secs=0.1) as server, client_of(server.port) as client:
        client.ask()
        client.ask(stream=3)
        await until(lambda: len(server.app.calls) == 2)
        _protocol(server).shutdown()
        client.ask(stream=5)
        await client.wait(lambda: client.goaways)
        client.ask(POST, stream=7, body=b"x")
        await client.in_step()
        gate.set()
        assert [(await client.answer(stream)).body for stream in (1, 3)] == [b"here", b"here"]
        assert await client.ended() == NO_ERROR
        assert [goaway.last_stream_id for goaway in client.goaways] == [3]
        assert len(server.app.calls) == 2
        assert set(client.answers) == {1, 3}


async def test_a_goodbye_is_said_when_what_was_taken_is_answered() -> None:
    """Some clients take GOAWAY for the end of whatever is under way; and each request delays it no further."""
    gate = asyncio.Event()

    async def wait(call: Call) -> None:
        await gate.wait()
        await call.answer(b"here")

    async with serving(wait, goodbye_secs=60) as server, client_of(server.port) as client:
        client.ask()
        await until(lambda: server.app.calls)
        _protocol(server).shutdown()
        client.ask(stream=3)
        await client.in_step()
        assert client.goaways == []
        gate.set()
        await client.wait(lambda: client.goaways)
        assert client.answers[1].is_whole
        assert await client.ended() == NO_ERROR
        assert [goaway.last_stream_id for goaway in client.goaways] == [1]


async def test_a_request_that_crosses_a_goodbye_does_not_destroy_it() -> None:
    """The client learns that its request was not taken, although it came to a connection that had ended here."""
    async with serving() as server, client_of(server.port) as client:
        client.ask()
        await client.answer()
        _protocol(server).shutdown()
        for stream in range(3, 103, 2):
            client.ask(POST, stream=stream, body=b"x" * 1000)
        assert await client.ended() == NO_ERROR
        assert [goaway.last_stream_id for goaway in client.goaways] == [1]
        assert len(server.app.calls) == 1


async def test_a_goodbye_waits_for_the_first_request() -> None:
    """Who has only just connected is about to ask."""
    async with serving(goodbye_secs=60) as server, client_of(server.port) as client:
        _protocol(server).shutdown()
        await client.in_step()
        assert client.goaways == []
        client.ask()
        assert (await client.answer()).status == 200
        assert await client.ended() == NO_ERROR
        assert [goaway.last_stream_id for goaway in client.goaways] == [1]


async def test_a_goodbye_ends_a_connection_at_rest() -> None:
    """Nobody has to wait for its limit; twice is once."""
    async with serving() as server, client_of(server.port) as client:
        client.ask()
        await client.answer()
        protocol = _protocol(server)
        protocol.shutdown()
        protocol.shutdown()
        assert await client.ended() == NO_ERROR
        assert len(client.goaways) == 1


async def test_a_client_that_says_goodbye_gets_its_answers() -> None:
    """And is then left."""
    async with serving(goodbye_secs=0.01) as server, client_of(server.port) as client:
        client.ask(POST, body=b"x")
        client.send(frame(7, b"\0" * 8))
        assert (await client.answer()).body == b"x"
        assert await client.ended() == NO_ERROR


# -- limits ------------------------------------------------------------------------------------------------------------


async def test_a_connection_at_rest_is_closed_in_good_order() -> None:
    """With GOAWAY, so that a client knows that nothing of it was lost."""
    async with serving(keep_alive_secs=0.05) as server, client_of(server.port) as client:
        client.ask()
        await client.answer()
        assert await client.ended() == NO_ERROR


async def test_a_client_that_asks_nothing_is_left() -> None:
    """The beginning of a head buys no time."""
    async with serving(head_timeout_secs=0.2) as server, client_of(server.port) as client:
        client.send(HeadersFrame(1, client.fields(GET[:1])))
        assert await client.ended() == NO_ERROR
        assert server.app.calls == []


async def test_pings_do_not_keep_a_connection() -> None:
    """It lies idle all the same."""
    async with serving(keep_alive_secs=0.2) as server, client_of(server.port) as client:
        client.ask()
        await client.answer()

        async def ping() -> None:
            while not client.is_closed:
                client.send(PingFrame(0, b"12345678"))
                await asyncio.sleep(0.02)

        async with asyncio.TaskGroup() as group:
            group.create_task(ping())
            assert await client.ended() == NO_ERROR


async def test_a_request_under_way_keeps_its_connection() -> None:
    """However long it takes."""

    async def slow(call: Call) -> None:
        await asyncio.sleep(0.2)
        await call.answer(b"late")

    async with serving(slow, keep_alive_secs=0.05, head_timeout_secs=0.05) as server, client_of(server.port) as client:
        client.ask()
        assert (await client.answer()).body == b"late"


async def test_a_body_that_stops_coming_is_given_up() -> None:
    """Its slot is given back, and DATA that holds nothing buys no time; other requests of the connection go on."""
    async with serving(body_idle_secs=0.05) as server, client_of(server.port) as client:
        client.send(client.head(POST, ends=False), data(b"x"), data(b""), data(b""))
        assert (await client.answer()).reset == CANCEL
        await server.idle()
        client.ask(stream=3)
        assert (await client.answer(3)).status == 200


@pytest.mark.parametrize(
    "say",
    [
        pytest.param(lambda c, n: [PingFrame(0, b"12345678")], id="PING"),
        pytest.param(lambda c, n: [SettingsFrame(0)], id="SETTINGS"),
        pytest.param(
            lambda c, n: [c.head(stream=2 * n + 3), RstStreamFrame(2 * n + 3, CANCEL)], id="requests that are reset"
        ),
        pytest.param(
            lambda c, n: [c.head([*GET, (b"X-Bad", b"1")], stream=2 * n + 3)], id="requests that have to be reset"
        ),
        pytest.param(
            lambda c, n: [more(b"", stream=3, ends=False) if n else HeadersFrame(3, c.fields(GET))],
            id="CONTINUATION",
        ),
    ],
)  # fmt: skip
async def test_floods_end_their_connection(say) -> None:
    """A client that makes work without end is told to be calm, and left; that is less than 2,000 frames."""

    async def wait(call: Call) -> None:
        await call.receive()

    async with serving(wait) as server, client_of(server.port) as client:
        client.send(client.head(POST, ends=False))
        for n in range(2000):
            client.send(*say(client, n))
        assert await client.ended() == ENHANCE_YOUR_CALM
        assert len(server.app.calls) <= 258


async def test_a_connection_counts_among_those_of_its_address() -> None:
    """One too many is told so, and one that has ended makes room."""
    connections = Connections(limit=1, limit_per_address=10, trusted=())
    async with serving(connections=connections) as server:
        async with client_of(server.port) as client:
            async with client_of(server.port, says_hello=False) as second:
                second.send(PREFACE, SettingsFrame(0), second.head())
                assert await second.ended() == ENHANCE_YOUR_CALM
            client.ask()
            assert (await client.answer()).status == 200
        await server.empty()
        assert len(connections) == 0
        async with client_of(server.port) as client:
            client.ask()
            assert (await client.answer()).status == 200


async def test_a_connection_of_many_reset_requests_ends_in_good_order() -> None:
    """A browser that cancels much, over a day, loses nothing: zttp itself would end the connection at 256."""

    async def script(call: Call) -> None:
        if call.scope["method"] == "POST":
            await call.receive()
        else:
            await call.answer(b"here")

    async with serving(script, goodbye_secs=0.05) as server, client_of(server.port) as client:
        stream, answered = 1, 0
        while not client.goaways:
            client.send(client.head(POST, stream=stream, ends=False), RstStreamFrame(stream, CANCEL))
            client.ask(stream=stream + 2)
            answer = client.answers.setdefault(stream + 2, Answer())
            await client.wait(lambda: answer.is_whole or client.goaways)  # noqa: B023
            assert answer.is_whole or client.goaways[-1].last_stream_id < stream + 2  # may be sent again
            answered += answer.is_whole
            stream += 4
        assert answered in range(190, 210)
        assert await client.ended() == NO_ERROR


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        pytest.param([*GET, *[(b"a", b"b")] * 100], 431, id="too many headers"),
        pytest.param([*GET[:2], (b":path", b"/a b"), GET[3]], 400, id="a space in the path"),
        pytest.param([(b":method", b"TRACE"), *GET[1:]], 405, id="TRACE"),
        pytest.param(GET[:3], 400, id="no host"),
    ],
)
async def test_what_http1_would_refuse_is_refused(fields, status: int) -> None:
    """With the same error; the app never sees it, and other requests go on."""
    async with serving() as server, client_of(server.port) as client:
        client.ask(fields)
        answer = await client.answer()
        assert (answer.status, answer.headers[b"content-type"]) == (status, b"application/json; charset=utf-8")
        assert answer.body.startswith(b'{"error": {"type": ')
        assert server.app.calls == []
        client.ask(stream=3)
        assert (await client.answer(3)).status == 200


@pytest.mark.parametrize("kbytes", [70, 300])
async def test_heads_without_end_end_their_connection(kbytes: int) -> None:
    """More than the 64 KiB that the server's SETTINGS allow are not kept."""
    async with serving() as server, client_of(server.port) as client:
        block = client.fields([*GET, *[(b"x-%d" % n, b"y" * 1000) for n in range(kbytes)]])
        pieces = [block[at : at + 16_000] for at in range(0, len(block), 16_000)]
        client.send(HeadersFrame(1, pieces[0], flags=["END_STREAM"]))
        client.send(*(more(piece, ends=piece is pieces[-1]) for piece in pieces[1:]))
        assert await client.ended() == ENHANCE_YOUR_CALM
        assert server.app.calls == []


async def test_a_head_that_unpacks_to_much_ends_its_connection() -> None:
    """The HPACK bomb: 8 kB that mean 15 MB."""
    async with serving() as server, client_of(server.port) as client:
        bomb = client.fields([*GET, (b"x", b"y" * 3000)]) + b"\xbe" * 5000
        client.send(HeadersFrame(1, bomb, flags=["END_STREAM", "END_HEADERS"]))
        assert await client.ended() == ENHANCE_YOUR_CALM or client.goaways
        assert server.app.calls == []


async def test_a_client_that_takes_no_answers_to_pings_is_not_read() -> None:
    """What is answered to it does not pile up."""
    async with serving() as server, client_of(server.port, limit=2**16) as client:
        protocol = _protocol(server)
        protocol._transport.set_write_buffer_limits(high=1000)
        protocol.pause_writing()
        assert not protocol._transport.is_reading()
        client.send(PingFrame(0, b"not read"))
        protocol.resume_writing()
        await client.wait(lambda: client.pongs == [b"not read"])


def _protocol(server) -> Http2:
    (protocol,) = server.state.connections
    assert isinstance(protocol, Http2)
    return protocol
