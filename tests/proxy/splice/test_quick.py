"""
The same request again on one connection: in fewer steps, and with the same outcome as if it were the first.

Whatever it was decided by may change between two of them, and then it is decided anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxy.splice.wires import ANSWER, REQUEST, Bench, open_bench
from proxy.suite.stage import ACTORS, TOKEN, Stand, open_stand

from gateway.core.lifecycle import Readiness
from gateway.proxy.splice.entering import Entering
from gateway.proxy.splice.quick import QuickExchange
from gateway.state.ports import RouteEnded

HEAD = REQUEST.replace(b"GET", b"HEAD")
TARGET = b"GET /path?a=b"


@pytest.fixture
async def bench(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Bench]:
    """Warm."""
    caplog.set_level(logging.WARNING, "gateway.requests")
    async with open_bench(tmp_path) as bench:
        yield bench


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The methods of all requests that were begun like any other."""
    methods: list[bytes] = []
    begin = Entering.begin

    def noted(exchange: Entering, line: Any, *rest: Any) -> None:
        methods.append(line.method)
        begin(exchange, line, *rest)

    monkeypatch.setattr(Entering, "begin", noted)
    return methods


def without_ids(messages: list[bytes]) -> list[bytes]:
    """What is each request's own is its id."""
    return [re.sub(rb"(X-Actor-Request-ID: )[0-9a-f]{24}", rb"\1-", message) for message in messages]


# --- which requests ---------------------------------------------------------------------------------------------------


async def test_the_third_of_the_same_is_not_begun_anew(bench: Bench, begun: list[bytes]) -> None:
    """The first is there already; the second is compared with it, and all others go as it went."""
    for _ in range(5):
        bench.exchange()
    assert begun == [b"GET"]
    assert len(bench.actor.written) == len(bench.caller.written) == 6


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(REQUEST, id="get"),
        pytest.param(REQUEST.replace(TARGET, b"GET /"), id="without a query"),
        pytest.param(REQUEST.replace(TARGET, b"GET /?token=" + TOKEN.encode() + b"&x=1"), id="a token in the query"),
        pytest.param(REQUEST[:-2] + b"Cookie: a=1\r\nTraceparent: 00-1-2-03\r\n\r\n", id="values that are cut out"),
        pytest.param(REQUEST.replace(b"GET /path", b"GET http://bob--shut-warm.localhost/path"), id="a whole address"),
        pytest.param(REQUEST[:-2] + b"Content-Length: 0\r\n\r\n", id="a body of nothing"),
        pytest.param(REQUEST[:-2] + b"Forwarded: for=1.2.3.4\r\nVia: 1.1 x\r\n\r\n", id="forwarded before"),
    ],
)
async def test_it_goes_on_as_the_first_did(bench: Bench, begun: list[bytes], request_: bytes) -> None:
    """Byte for byte to the Actor and to the caller, each with an id of its own."""
    bench.exchange(REQUEST.replace(b"/path", b"/before"))
    for kept in (bench.actor.written, bench.caller.written, begun):
        kept.clear()
    for _ in range(4):
        bench.exchange(request_)
    assert len(begun) == 2
    for written in (bench.actor.written, bench.caller.written):
        assert len(set(written)) == 4
        assert len(set(without_ids(written))) == 1
    assert TOKEN.encode() not in bench.actor.written[-1]


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(REQUEST.replace(b"GET", b"DELETE"), id="another method"),
        pytest.param(REQUEST.replace(b"GET", b"PUT")[:-2] + b"Content-Length: 2\r\n\r\nhi", id="a body"),
        pytest.param(REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0"), id="HTTP/1.0"),
        pytest.param(REQUEST.replace(b"GET", b"OPTIONS"), id="what may be a preflight"),
    ],
)
async def test_what_is_begun_each_time(bench: Bench, begun: list[bytes], request_: bytes) -> None:
    """Whatever is not the usual."""
    if b"HTTP/1.0" in request_:
        request_ = request_[:-2] + b"Connection: keep-alive\r\n\r\n"
    for _ in range(4):
        bench.exchange(request_)
    assert len(begun) == 4
    assert len(bench.caller.written) == 5


async def test_any_other_request_between_has_the_next_begun_anew(bench: Bench, begun: list[bytes]) -> None:
    """Also one that comes in pieces, or together with the next."""
    for _ in range(3):
        bench.exchange()
    del begun[:]
    bench.exchange(REQUEST.replace(b"/path", b"/other"))
    bench.exchange()
    assert len(begun) == 2
    bench.front.data_received(REQUEST[:40])
    bench.front.data_received(REQUEST[40:])
    bench.answer()
    assert len(begun) == 3


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from([REQUEST, REQUEST.replace(b"/path", b"/other"), REQUEST[:-2] + b"Cookie: a=1\r\n\r\n"]),
        st.sampled_from([ANSWER, ANSWER.replace(b"100", b"0")[:-100], ANSWER.replace(b"200 OK", b"404 Not Found")]),
        st.one_of(st.none(), st.integers(1, len(REQUEST) - 1)),
        st.one_of(st.none(), st.integers(1, 100)),
        st.integers(1, 4),
    ),
    max_size=8,
)


async def test_no_sequence_of_requests_tells_the_difference(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever comes, whole or in pieces, once or again: with the short way and without, all is written alike."""
    repeated = 0
    again = QuickExchange.again

    def counted(exchange: QuickExchange) -> bool:
        nonlocal repeated
        done = again(exchange)
        repeated += done
        return done

    def play(operations: list[Any]) -> tuple[list[bytes], list[bytes]]:
        front, caller = bench.connect()
        bench.actor.written.clear()
        for request, answer, cut, answer_cut, times in operations:
            for _ in range(times):
                pieces = (request,) if cut is None else (request[:cut], request[cut:])
                for piece in pieces:
                    front.data_received(piece)
                for piece in (answer,) if answer_cut is None else (answer[:answer_cut], answer[answer_cut:]):
                    bench.answer(piece)
        assert bench.run.taken == 0
        front.connection_lost(None)
        return without_ids(bench.actor.written), without_ids(caller.written)

    @settings(max_examples=60, deadline=None)
    @given(OPERATIONS)
    def compare(operations: list[Any]) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(QuickExchange, "again", counted)
            quick_way = play(operations)
        with monkeypatch.context() as patch:
            patch.setattr(QuickExchange, "again", lambda _: False)
            patch.setattr(QuickExchange, "begun", QuickExchange.__mro__[1].begun)
            assert play(operations) == quick_way

    compare()
    assert repeated > 20


# --- what changes meanwhile -------------------------------------------------------------------------------------------


async def forget_token(bench: Bench) -> None:
    bench.stand.gateway.services.auth.forget(TOKEN)


async def forget_another_token(bench: Bench) -> None:
    bench.stand.gateway.services.auth.forget("greenroom_api_another")


async def close_the_actor(bench: Bench) -> None:
    actor, records = ACTORS["shut-warm"], bench.stand.gateway.services.state.records
    await records.replace_actor(replace(actor, standby_from_api={"isEnabled": False}))
    await bench.stand.gateway.directory.renew(actor.id)


async def delete_the_actor(bench: Bench) -> None:
    actor = ACTORS["shut-warm"]
    await bench.stand.gateway.services.state.records.delete_actor(actor.id)
    await bench.stand.gateway.directory.renew(actor.id)


async def change_another_actor(bench: Bench) -> None:
    actor, records = ACTORS["open-spare"], bench.stand.gateway.services.state.records
    await records.replace_actor(replace(actor, standby_from_api={"isEnabled": False}))
    await bench.stand.gateway.directory.renew(actor.id)


async def stop(bench: Bench) -> None:
    bench.splicing.decisions.is_stopping = True


async def fill_the_run(bench: Bench) -> None:
    bench.run.taken += 1000


async def end_the_run(bench: Bench) -> None:
    await bench.stand.end_run(bench.run.route.run_id)


async def drain_the_run(bench: Bench) -> None:
    route = replace(bench.run.route, readiness=Readiness.DRAINING)
    await bench.stand.signals.put_route(route)
    await bench.stand.until(lambda: bench.run.route.readiness is Readiness.DRAINING)


async def have_it_refuse(bench: Bench) -> None:
    bench.stand.gateway.desk.refused(bench.run)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        pytest.param(forget_token, None, id="its token is asked for anew"),
        pytest.param(forget_another_token, 200, id="another token has changed"),
        pytest.param(close_the_actor, 400, id="its Actor takes no requests any more"),
        pytest.param(delete_the_actor, 404, id="its Actor is gone"),
        pytest.param(change_another_actor, 200, id="another Actor has changed"),
        pytest.param(stop, 503, id="Greenroom stops"),
        pytest.param(fill_the_run, None, id="its run is full"),
        pytest.param(end_the_run, None, id="its run has ended"),
        pytest.param(drain_the_run, None, id="its run is to end"),
        pytest.param(have_it_refuse, None, id="its run has refused a connection"),
    ],
)
async def test_a_change_counts_from_the_next_request_on(
    bench: Bench, begun: list[bytes], change: Callable[[Bench], Awaitable[None]], status: int | None
) -> None:
    """*status* None: it waits, for the records or for a slot, and nothing goes to the run."""
    for _ in range(3):
        bench.exchange()
    assert len(begun) == 1
    taken, sent = bench.run.taken, len(bench.actor.written)
    await change(bench)
    bench.front.data_received(REQUEST)
    assert len(begun) == 2
    if status == 200:
        assert len(bench.actor.written) == sent + 1
        bench.answer()
    else:
        assert len(bench.actor.written) == sent
    written = bench.caller.written[4:]
    if status is None:
        assert written == []
    else:
        assert written[0].startswith(b"HTTP/1.1 %d " % status)
        assert change is fill_the_run or bench.run.taken == taken


async def test_what_is_believed_of_a_token_has_its_time(bench: Bench, begun: list[bytes]) -> None:
    """It is that of the authenticator; then the request is begun like the first."""
    for _ in range(3):
        bench.exchange()
    assert len(begun) == 1
    remembered = bench.stand.gateway.services.auth.cached(TOKEN)
    assert remembered is not None
    exchange = bench.front._exchange
    assert exchange._until == pytest.approx(remembered.until)
    exchange._until = time.monotonic()
    bench.exchange()
    assert len(begun) == 2


async def test_who_leaves_says_so_in_the_next_answer(bench: Bench, begun: list[bytes]) -> None:
    """A process that another one takes over from tells each caller that it was the last answer."""
    for _ in range(3):
        bench.exchange()
    bench.splicing.lobby.is_leaving = True
    with contextlib.suppress(AttributeError):  # a wire can't be half-closed
        bench.exchange()
    assert b"\r\nConnection: close\r\n" in bench.caller.written[-1]
    assert bench.run.taken == 0


# --- how it may end ---------------------------------------------------------------------------------------------------

HOST = b"bob--open-spare.localhost"
GET = b"GET / HTTP/1.1\r\nHost: " + HOST + b"\r\n\r\n"
HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@contextlib.asynccontextmanager
async def an_actor_that_says(
    tmp_path: Path, last: bytes | None, **more: Any
) -> AsyncIterator[tuple[Stand, asyncio.StreamReader, asyncio.StreamWriter]]:
    """Three times hello and then *last*, whereupon it closes; with None it says nothing, and stays."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            for _ in range(3):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(HELLO)
            await reader.readuntil(b"\r\n\r\n")
            if last is None:
                await reader.read()
            else:
                writer.write(last)
        writer.close()

    async with open_stand(tmp_path, proxy_protocol="splice", **more) as stand, asyncio.timeout(20):
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        await stand.put_run("open-spare", server.sockets[0].getsockname()[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", stand.port)
        for _ in range(3):
            writer.write(GET)
            assert await reader.readuntil(b"hello")
        writer.write(GET)
        yield stand, reader, writer
        writer.close()
        await stand.until(lambda: not stand.gateway.desk.in_flight and not stand.gateway.desk.held)
        server.close()


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        pytest.param(HELLO, b"hello", id="whole"),
        pytest.param(HELLO.replace(b"5", b"9") + b" all", b"hello all", id="of another length"),
        pytest.param(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + HELLO, b"hello", id="after an interim one"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            b"\r\n0\r\n\r\n",
            id="in chunks",
        ),
        pytest.param(HELLO + HELLO, b"hello", id="with another one that nobody has asked for"),
        pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", b"\r\n\r\n", id="without a body"),
        pytest.param(b"", b"hello", id="not at all, and then the next connection has it"),
    ],
)
async def test_an_answer_that_is_another_one(tmp_path: Path, last: bytes, expected: bytes) -> None:
    """It passes as ever, and the connection of the caller stays in step."""
    async with an_actor_that_says(tmp_path, last) as (_, reader, writer):
        await reader.readuntil(expected)
        for _ in range(2):
            writer.write(GET)
            answer = await reader.readuntil(b"hello")
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert answer.count(b"HTTP/1.1") == 1


async def test_an_answer_that_breaks_off(tmp_path: Path) -> None:
    """It does not look whole."""
    async with an_actor_that_says(tmp_path, HELLO.replace(b"5", b"50")) as (_, reader, _writer):
        with contextlib.suppress(ConnectionResetError):
            assert (await reader.read()).endswith(b"hello")


async def test_what_is_no_answer(tmp_path: Path) -> None:
    """502, and the caller may go on."""
    async with an_actor_that_says(tmp_path, b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\n") as (_, reader, _writer):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 502 ")


async def test_no_answer_in_time(tmp_path: Path) -> None:
    """504 with the setting's name, as for any request."""
    async with an_actor_that_says(tmp_path, None, first_byte_timeout_secs=0.3) as (_, reader, _writer):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 504 ")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        assert "first_byte_timeout_secs" in json.loads(await reader.readexactly(length))["error"]["message"]


async def test_a_caller_who_leaves(tmp_path: Path) -> None:
    """His slot is free again; the fixture waits for it."""
    async with an_actor_that_says(tmp_path, None) as (stand, _reader, writer):
        await stand.until(lambda: stand.gateway.desk.in_flight == 1)
        writer.transport.abort()


async def test_its_run_ends_and_another_takes_the_next(tmp_path: Path) -> None:
    """The same connection of a caller goes on to it, whatever was noted of the first."""
    async with an_actor_that_says(tmp_path, HELLO) as (stand, reader, writer):
        await reader.readuntil(b"hello")
        (run,) = [one for one in stand.gateway.desk.routes.all_runs() if one.route.actor_id == ACTORS["open-spare"].id]
        await stand.signals.end_route(RouteEnded(run_id=run.route.run_id, live_view_label=""))
        await stand.until(lambda: run.is_gone)
        writer.write(GET)
        await stand.until(lambda: stand.gateway.desk.held == 1)
        await stand.put_run("open-spare", stand.warm.port)
        assert (await reader.readuntil(b"\r\n\r\n/")).startswith(b"HTTP/1.1 200 OK")


# --- what is kept of it -----------------------------------------------------------------------------------------------


async def test_it_is_counted_like_all_others(bench: Bench) -> None:
    """As a warm request by the metrics, and as a hit of the cache of heads."""

    def shown(name: str) -> float:
        text = bench.stand.metrics.render()[0].decode()
        return float(next(line for line in text.splitlines() if line.startswith(name)).rpartition(" ")[2])

    requests = 'greenroom_requests_total{kind="standby",status="2xx",temperature="warm"}'
    hits = 'greenroom_head_cache_hits_total{cache="request"}'
    before = shown(requests), shown(hits)
    for _ in range(7):
        bench.exchange()
    assert (shown(requests), shown(hits)) == (before[0] + 7, before[1] + 7)


async def test_it_is_logged_like_all_others(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """One line each, with its own id and its run."""
    caplog.clear()
    with caplog.at_level(logging.INFO, "gateway.requests"):
        for _ in range(4):
            bench.exchange()
    lines = [record for record in caplog.records if record.name == "gateway.requests"]
    assert [record.getMessage() for record in lines] == ["standby GET 200"] * 4
    assert len({vars(record)["request_id"] for record in lines}) == 4
    assert {vars(record)["run_id"] for record in lines} == {bench.run.route.run_id}
