"""HTTP/2 to an Actor that speaks HTTP/1.1: ends of all kinds, interim answers, tokens; through a whole gateway."""

from __future__ import annotations

import asyncio
import time

import pytest
from http2.rig import CANCEL, INTERNAL_ERROR, PREFACE, Client, Fields, client_of, data
from hyperframe.frame import RstStreamFrame, SettingsFrame
from proxy.suite.recorder import Turn
from proxy.suite.scenes import dying_run
from proxy.suite.stage import TOKEN, Door


def asked(door: Door, *extra: tuple[bytes, bytes], method: bytes = b"GET", path: bytes = b"/case") -> Fields:
    return [(b":method", method), (b":scheme", b"http"), (b":path", path), (b":authority", door.host), *extra]


async def gone(turn: Turn) -> None:
    """Begins an answer, and waits until nobody listens."""
    await turn.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
    await turn.until_gone()
    turn.close()


@pytest.mark.parametrize("how", ["reset", "close"])
async def test_a_caller_who_leaves_ends_the_request_at_the_actor(door: Door, how: str) -> None:
    """Within a second, be it by a reset or with his connection; the slot is given back (``door`` sees to that)."""
    door.recorder.scripts[b"/case"] = gone
    async with client_of(door.address[1]) as client:
        client.ask(asked(door))
        await client.wait(lambda: 1 in client.answers and client.answers[1].body == b"first")
        left_at = time.monotonic()
        if how == "reset":
            client.send(RstStreamFrame(1, CANCEL))
            await client.in_step()
        else:
            client.close()
        await asyncio.to_thread(door.recorder.wait_until, lambda: door.recorder.requests[0].connection.has_ended)
        assert time.monotonic() - left_at < 1
        if how == "reset":
            client.ask(asked(door, path=b"/next"), stream=3)
            assert (await client.answer(3)).body == b"/next"


@pytest.mark.parametrize(
    "half",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", id="chunked"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", id="of known length"),
    ],
)
async def test_an_answer_that_breaks_off_is_seen_to_be_broken(door: Door, half: bytes) -> None:
    """The stream is reset; the connection serves the next request."""

    async def break_off(turn: Turn) -> None:
        await turn.write(half)
        await turn.breathe()
        turn.reset()

    door.recorder.scripts[b"/case"] = break_off
    async with client_of(door.address[1]) as client:
        client.ask(asked(door, method=b"POST"), body=b"x")
        answer = await client.answer()
        assert (answer.reset, answer.is_whole) == (INTERNAL_ERROR, False) or answer.status == 502
        client.ask(asked(door, path=b"/next"), stream=3)
        assert (await client.answer(3)).body == b"/next"


@pytest.mark.parametrize("body", [None, b"hello"], ids=["GET", "PUT"])
async def test_a_run_that_has_died(door: Door, body: bytes | None) -> None:
    """Whoever may be asked twice is asked at the next run, with the whole body that the first one had."""
    method = b"GET" if body is None else b"PUT"
    with dying_run(door) as host:
        async with client_of(door.address[1]) as client:
            client.ask([*asked(door, path=b"/warm-up")[:-1], (b":authority", host)])
            assert (await client.answer()).status == 200
            client.ask([*asked(door, method=method, path=b"/x")[:-1], (b":authority", host)], stream=3, body=body)
            answer = await client.answer(3)
            assert (answer.status, answer.body) == (200, b"/x")
    assert [request.message.body for request in door.recorder.requests] == [body or b""]


async def test_what_is_no_answer_is_a_bad_gateway(door: Door) -> None:
    """Told with a type, as over HTTP/1.1."""

    async def babble(turn: Turn) -> None:
        await turn.body()
        await turn.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab")
        turn.close()

    door.recorder.scripts[b"/case"] = babble
    async with client_of(door.address[1]) as client:
        client.ask(asked(door, method=b"POST"), body=b"x")
        answer = await client.answer()
        assert answer.status == 502
        assert b"standby-bad-gateway" in answer.body


async def test_a_body_waits_for_the_actors_100(door: Door) -> None:
    """Expect: 100-continue, from end to end; but where the Actor is cold, the gateway asks for the body itself."""
    gate = door.recorder.gate()

    async def ask_for_it(turn: Turn) -> None:
        await gate.opened()
        await turn.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await turn.body()
        await turn.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    door.recorder.scripts[b"/case"] = ask_for_it
    async with client_of(door.address[1]) as client:
        client.send(client.head(asked(door, (b"expect", b"100-continue"), method=b"POST"), ends=False))
        await asyncio.to_thread(door.recorder.wait_until, lambda: door.recorder.requests)
        await client.in_step()
        # While a run is awaited the caller is listened to, which takes in the beginning of what he sends.
        assert (1 in client.answers) == door.is_cold
        gate.open()
        await client.wait(lambda: 1 in client.answers and client.answers[1].interim == [100])
        client.send(data(b"body", ends=True))
        assert (await client.answer()).body == b"ok"


async def test_a_refusal_comes_instead_of_a_100(door: Door) -> None:
    """The body is then never asked for; but where the Actor was cold (see above)."""

    async def refuse(turn: Turn) -> None:
        await turn.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
        turn.close()

    door.recorder.scripts[b"/case"] = refuse
    async with client_of(door.address[1]) as client:
        client.send(client.head(asked(door, (b"expect", b"100-continue"), method=b"POST"), ends=False))
        answer = await client.answer()
        assert (answer.status, answer.body, answer.interim) == (413, b"big", [100] if door.is_cold else [])


@pytest.mark.parametrize(
    ("said", "body", "length"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole", b"whole", b"5", id="of known length"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\nX-Sum: 1\r\n\r\n",
            b"whole", None, id="chunked, with trailers",
        ),
        pytest.param(b"HTTP/1.0 200 OK\r\n\r\nwhole", b"whole", None, id="until the end"),
        pytest.param(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                     b"", b"0", id="after an interim one"),
    ],
)  # fmt: skip
async def test_answers_of_all_framings(door: Door, said: bytes, body: bytes, length: bytes | None) -> None:
    """What is said of the connection to the Actor stays there; trailers and 103 have no word in ASGI."""

    async def say(turn: Turn) -> None:
        await turn.body()
        await turn.write(said)
        if said.startswith(b"HTTP/1.0"):
            turn.close()

    door.recorder.scripts[b"/case"] = say
    async with client_of(door.address[1]) as client:
        client.ask(asked(door))
        answer = await client.answer()
        assert (answer.status, answer.body, answer.is_whole) == (200, body, True)
        assert answer.headers.get(b"content-length") == length
        assert not {b"transfer-encoding", b"connection", b"trailer"} & set(answer.headers)
        assert len(answer.headers[b"x-actor-request-id"]) == 24


@pytest.mark.parametrize(("token", "status"), [(None, 401), (b"Bearer wrong", 401), (b"Bearer " + TOKEN.encode(), 200)])
async def test_tokens_are_asked_for(door: Door, token: bytes | None, status: int) -> None:
    """As over HTTP/1.1; the Actor never sees one."""
    extra = [(b"authorization", token)] if token else []
    fields = [*asked(door)[:3], (b":authority", door.shut_host), *extra]
    async with client_of(door.address[1]) as client:
        client.ask(fields)
        assert (await client.answer()).status == status
    assert not any(TOKEN.encode() in bytes(one.connection.raw) for one in door.recorder.requests)
    assert len(door.recorder.requests) == (status == 200)


@pytest.mark.parametrize("size", [1, 2, 3, 8, 9, 10, 24, 33, 100])
async def test_requests_cut_anywhere(door: Door, size: int) -> None:
    """However the bytes of a connection come, they are the same requests."""
    async with client_of(door.address[1], says_hello=False) as client:
        said = PREFACE + SettingsFrame(0).serialize()
        for stream in (1, 3):
            said += client.head(asked(door, method=b"POST"), stream=stream, ends=False).serialize()
            said += data(b"one", stream=stream).serialize() + data(b"two", stream=stream, ends=True).serialize()
        for at in range(0, len(said), size):
            client.send(said[at : at + size])
            await asyncio.sleep(0)
        assert [(await client.answer(stream)).status for stream in (1, 3)] == [200, 200]
    assert [(one.message.target, one.message.body) for one in door.recorder.requests] == [(b"/case", b"onetwo")] * 2


async def test_one_connection_serves_many_callers(door: Door) -> None:
    """As a proxy in front uses it: requests of different hosts and methods, interleaved."""
    async with client_of(door.address[1]) as client:
        await _ask_many(door, client)
        assert all([(await client.answer(stream)).status == 200 for stream in range(1, 101, 2)])
    assert len(door.recorder.requests) == 50
    assert {one.message.body for one in door.recorder.requests} == {b"", *(b"%d" % n for n in range(1, 50, 2))}


async def _ask_many(door: Door, client: Client) -> None:
    for n in range(50):
        if n % 2:
            client.ask(asked(door, method=b"PUT"), stream=2 * n + 1, body=b"%d" % n)
        else:
            client.ask(asked(door), stream=2 * n + 1)
