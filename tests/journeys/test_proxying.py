"""What passes between callers and Actors, end to end: bytes both ways as they come, WebSockets, and the headers."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from journeys.greenroom import TOKEN, Greenroom, eventually
from websockets.exceptions import ConnectionClosed, InvalidStatus

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEN_MIB = 10 * 1024 * 1024


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def greenroom(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Greenroom]:
    """One server with one warm Actor for all of these tests."""
    async with Greenroom(tmp_path_factory.mktemp("proxying") / "data") as server:
        await server.probe("probe", {"desiredRequestsPerActorRun": 10, "maxRequestsPerActorRun": 10})
        await server.call("probe")
        yield server


def ours(greenroom: Greenroom) -> dict[str, str]:
    """What a request by the plain client needs."""
    return {"Host": greenroom.host("probe"), "Authorization": f"Bearer {TOKEN}"}


# -- bodies ------------------------------------------------------------------------------------------------------------


async def test_a_stream_passes_both_ways_as_it_is_written(greenroom: Greenroom) -> None:
    """Each chunk comes back before the next one is sent: nothing is gathered on the way, in either direction."""
    reader, writer = await asyncio.open_connection("127.0.0.1", greenroom.port)
    lines = [f"{name}: {value}\r\n" for name, value in ours(greenroom).items()]
    writer.write(f"POST /echo HTTP/1.1\r\n{''.join(lines)}Transfer-Encoding: chunked\r\n\r\n".encode())
    async with asyncio.timeout(20):
        for number in range(3):
            writer.write(b"7\r\nchunk %d\r\n" % number)
            if not number:
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            assert await reader.readexactly(12) == b"7\r\nchunk %d\r\n" % number
        writer.write(b"0\r\n\r\n")
        assert await reader.readexactly(5) == b"0\r\n\r\n"
    writer.close()
    await writer.wait_closed()


async def test_an_endless_answer_begins_at_once(greenroom: Greenroom) -> None:
    """Its first bytes are with the caller although it never ends; so are server-sent events."""
    async with greenroom.client.stream("GET", "/endless?first=1", headers=ours(greenroom)) as answer:
        assert await anext(answer.aiter_bytes()) == b"first"
    events = await greenroom.call("probe", "/stream?n=3&ms=10")
    assert (events.headers["content-type"], events.text) == ("text/event-stream", "data: 0\n\ndata: 1\n\ndata: 2\n\n")


@pytest.mark.parametrize("is_chunked", [False, True], ids=["content-length", "chunked"])
async def test_a_large_upload_arrives_whole(greenroom: Greenroom, is_chunked: bool) -> None:
    """10 MiB, by checksum."""
    data = random.Random(1).randbytes(TEN_MIB)

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 100_000):
            yield data[start : start + 100_000]

    answer = await greenroom.call("probe", "/sum", method="PUT", content=pieces() if is_chunked else data)
    assert answer.json() == {"size": TEN_MIB, "sha256": hashlib.sha256(data).hexdigest()}


async def test_a_large_download_arrives_whole(greenroom: Greenroom) -> None:
    """10 MiB, by checksum, with the Actor's own Content-Length."""
    answer = await greenroom.call("probe", f"/bytes?n={TEN_MIB}")
    assert answer.headers["content-length"] == str(TEN_MIB)
    assert hashlib.sha256(answer.content).digest() == hashlib.sha256(random.Random(TEN_MIB).randbytes(TEN_MIB)).digest()


async def test_a_head_request_has_the_heads_of_its_answer_and_no_body(greenroom: Greenroom) -> None:
    """And the connection serves on."""
    answer = await greenroom.call("probe", "/bytes?n=1000", method="HEAD")
    assert (answer.status_code, answer.headers["content-length"], answer.content) == (200, "1000", b"")


async def test_a_body_that_was_held_during_the_start_arrives_whole(greenroom: Greenroom) -> None:
    """The caller begins to send before there is a run; nothing of it is lost."""
    await greenroom.probe("cold")
    data = random.Random(2).randbytes(1024 * 1024)
    answer = await greenroom.call("cold", "/sum", method="POST", content=data)
    assert answer.json() == {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


# -- headers -----------------------------------------------------------------------------------------------------------


async def test_what_only_greenroom_may_say_is_said_by_greenroom(greenroom: Greenroom) -> None:
    """A fresh request id and true forwarding headers; a caller's own and the readiness probe's header are dropped."""
    forged = {
        "X-Actor-Request-ID": "forged",
        "X-Apify-Container-Server-Readiness-Probe": "1",
        "X-Forwarded-For": "203.0.113.7",
        "X-Forwarded-Host": "elsewhere.example",
        "X-Forwarded-Proto": "https",
        "Forwarded": "for=203.0.113.7",
        "X-Mine": "kept",
    }
    ids = set()
    for _ in range(2):
        answer = await greenroom.call("probe", "/seen?a=%20b&a=c", headers=forged)
        seen = {name.lower(): value for name, value in answer.json()["headers"]}
        host = greenroom.host("probe")
        assert answer.json()["target"] == "/seen?a=%20b&a=c"
        assert (seen["host"], seen["x-mine"]) == (host, "kept")
        assert (seen["x-forwarded-for"], seen["x-forwarded-host"]) == ("127.0.0.1", host)
        assert (seen["x-forwarded-proto"], seen["forwarded"]) == ("http", f'for=127.0.0.1;host="{host}";proto=http')
        assert "x-apify-container-server-readiness-probe" not in seen
        ids.add(seen["x-actor-request-id"])
    assert len(ids) == 2
    assert "forged" not in ids


async def test_the_request_id_of_an_actor_is_the_one_in_the_log(greenroom: Greenroom) -> None:
    """What an Actor notes can be found in Greenroom's log, and so can what an error told its caller."""
    seen = dict((await greenroom.call("probe", "/seen")).json()["headers"])
    failed = await greenroom.call("probe", "/drop")
    assert failed.status_code == 502
    for request_id in (seen["X-Actor-Request-ID"], failed.headers["x-actor-request-id"]):
        noted = f'"request_id": "{request_id}"'
        # The line is written once the answer has gone.
        await eventually(lambda noted=noted: noted in greenroom.log, what="the line of the log")
        assert greenroom.log.count(noted) == 1


# -- WebSockets --------------------------------------------------------------------------------------------------------


async def test_a_websocket_echoes_text_and_bytes(greenroom: Greenroom) -> None:
    """Both kinds, also large ones, in order."""
    async with greenroom.websocket("probe") as socket:
        for message in ("text: žluť", b"\x00\xff", "", "x" * 100_000):
            await socket.send(message)
            assert await socket.recv() == message


async def test_the_subprotocol_is_the_one_that_the_actor_chose(greenroom: Greenroom) -> None:
    """The Actor sees all that were offered, and the caller is told its choice (the last one, at the probe)."""
    async with greenroom.websocket("probe", subprotocols=["first", "second"]) as socket:
        assert socket.subprotocol == "second"
    async with greenroom.websocket("probe") as socket:
        assert socket.subprotocol is None


async def test_a_close_code_of_the_actor_reaches_the_caller(greenroom: Greenroom) -> None:
    """4001 and its reason."""
    async with greenroom.websocket("probe") as socket:
        await socket.send("close")
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "as you wish")


async def test_a_close_code_of_the_caller_reaches_the_actor(greenroom: Greenroom) -> None:
    """4001, as the Actor's log tells."""
    run_id = (await greenroom.call("probe", "/count")).json()["runId"]
    async with greenroom.websocket("probe") as socket:
        await socket.close(4001, "enough")

    async def told() -> bool:
        return "the caller closed with 4001" in await greenroom.log_of(run_id)

    await eventually(told, what="the Actor's word")


@pytest.mark.parametrize(
    ("actor", "token", "status"),
    [("probe", None, 401), ("probe", "no-token-of-anybody", 401), ("nothing", TOKEN, 404)],
    ids=["no-token", "bad-token", "unknown-host"],
)
async def test_a_websocket_without_the_right_is_refused_by_status(
    greenroom: Greenroom, actor: str, token: str | None, status: int
) -> None:
    """The upgrade gets the same answers as a request."""
    with pytest.raises(InvalidStatus) as refused:
        async with greenroom.websocket(actor, token=token):
            pass
    assert refused.value.response.status_code == status
    assert refused.value.response.body is not None
    assert b'"type"' in refused.value.response.body


async def test_a_refusal_by_the_actor_is_passed_on(greenroom: Greenroom) -> None:
    """Where the Actor answers the upgrade with an ordinary answer, the caller gets that one."""
    with pytest.raises(InvalidStatus) as refused:
        async with greenroom.websocket("probe", "/seen"):
            pass
    assert refused.value.response.status_code == 200
    assert refused.value.response.body is not None
    assert b'"target": "/seen"' in refused.value.response.body


@pytest.mark.slow
async def test_a_websocket_wakes_an_actor_and_keeps_its_run_for_as_long_as_it_is_open(greenroom: Greenroom) -> None:
    """
    Three idle timeouts pass without a byte, and the run lives; with the socket closed it is wound down as idle.

    That the timeouts have passed is told by other Actors' runs, woken one after the other and wound down meanwhile.
    """
    actor = await greenroom.probe("held", {"idleTimeoutSecs": 1})
    clock = await greenroom.probe("clock", {"idleTimeoutSecs": 1})
    async with greenroom.websocket("held") as socket:
        (run,) = await greenroom.runs_of(actor)
        for _ in range(3):
            await greenroom.call("clock")
            await greenroom.ended((await greenroom.runs_of(clock))[-1]["id"])
        assert (await greenroom.run(run["id"]))["status"] == "RUNNING"
        await socket.send("still there")
        assert await socket.recv() == "still there"
    assert (await greenroom.ended(run["id"]))["status"] == "SUCCEEDED"
    assert "idle for 1 s" in await greenroom.log_of(run["id"])


async def test_a_stream_keeps_its_run_too(greenroom: Greenroom) -> None:
    """An answer that is being written is use, however long it takes."""
    actor = await greenroom.probe("streams", {"idleTimeoutSecs": 1})
    answer = await greenroom.call("streams", "/stream?n=2&ms=1300")
    assert answer.text == "data: 0\n\ndata: 1\n\n"
    (run,) = await greenroom.runs_of(actor)
    assert (await greenroom.ended(run["id"]))["status"] == "SUCCEEDED"


async def test_many_sockets_and_requests_share_a_run_side_by_side(greenroom: Greenroom) -> None:
    """Nobody gets what belongs to another."""

    async def talk(number: int) -> None:
        async with greenroom.websocket("probe") as socket:
            for round_number in range(5):
                await socket.send(f"{number}/{round_number}")
                assert await socket.recv() == f"{number}/{round_number}"

    async def ask(number: int) -> None:
        answer = await greenroom.call("probe", f"/seen?{number}", method="POST", content=str(number))
        assert (answer.json()["target"], answer.json()["body"]) == (f"/seen?{number}", str(number))

    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(talk(number))
            group.create_task(ask(number))
