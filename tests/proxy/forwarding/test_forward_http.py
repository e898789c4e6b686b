"""HTTP through the gateway, over real sockets: heads, outcomes, and answers of every kind."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from proxy.forwarding.asking import GET, OK, always_ok, outcome

from gateway.core.errors import InvalidRequest
from gateway.proxy.http import Ended
from gateway.proxy.upstream import UpstreamInvalid, UpstreamTimeout

if TYPE_CHECKING:
    from conftest import Head, Rig, Wire

# uvloop swallows the signal of the usual method.
pytestmark = pytest.mark.timeout(20, method="thread")
HEAD = b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n"


async def test_outcome(rig: Rig) -> None:
    """The outcome tells status, sizes and the time of the first byte."""
    await rig.actor(always_ok)
    before = rig.upstreams.loop.time()
    await rig.ask(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc")
    got = await outcome(rig)
    assert (got.ended, got.status, got.bytes_up, got.bytes_down) == (Ended.COMPLETE, 200, 3, 2)
    assert got.first_byte_at is not None
    assert before <= got.first_byte_at <= rig.upstreams.loop.time()


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        pytest.param(b"/", b"/", id="the root"),
        pytest.param(b"/a%2Fb%23%3F/%E4//c", b"/a%2Fb%23%3F/%E4//c", id="encoded"),
        pytest.param(b"/a?x=&x=1&y&z=%26", b"/a?x=&x=1&y&z=%26", id="empty values and repeated keys"),
        pytest.param(b"/a?token=greenroom_api_secret", b"/a", id="our token"),
        pytest.param(b"/a?b=%2F&token=t&c=", b"/a?b=%2F&c=", id="our token among others"),
        pytest.param(b"/a?xtoken=1", b"/a?xtoken=1", id="a look-alike"),
        pytest.param(b"/../a/./b", b"/../a/./b", id="dots"),
    ],
)
async def test_raw_targets(rig: Rig, target: bytes, expected: bytes) -> None:
    """The target reaches the Actor as it was sent, less our token."""
    seen: list[bytes] = []

    async def script(wire: Wire, _: int) -> None:
        seen.append((await wire.head()).target)
        await wire.write(OK)

    await rig.actor(script)
    await rig.ask(b"GET " + target + b" HTTP/1.1\r\nHost: h\r\n\r\n")
    assert seen == [expected]


async def test_headers_both_ways(rig: Rig) -> None:
    """Order and duplicates stay, hop-by-hop headers and our credentials don't, and nothing is made up."""
    seen: list[Head] = []

    async def script(wire: Wire, _: int) -> None:
        seen.append(await wire.head())
        await wire.write(
            b"HTTP/1.1 200 Fine\r\nX-B: 1\r\nSet-Cookie: a=1; Domain=example\r\nX-A: \xe4\r\nSet-Cookie: b=2\r\n"
            b"Keep-Alive: timeout=5\r\nX-Gone: 1\r\nConnection: X-Gone\r\nX-B: 2\r\nContent-Length: 0\r\n\r\n"
        )

    await rig.actor(script)
    head, _ = await rig.ask(
        b"GET / HTTP/1.1\r\nX-B: 1\r\nHost: h:1\r\nCookie: a=1\r\nAuthorization: Bearer greenroom_api_secret\r\n"
        b"X-A: 2\r\nCookie: b=2\r\nX-B: 3\r\nConnection: X-Gone\r\nX-Gone: 1\r\nX-Forwarded-For: 6.6.6.6\r\n"
        b"X-Actor-Request-ID: forged\r\n\r\n"
    )
    assert seen[0].headers == [
        (b"x-b", b"1"), (b"host", b"h:1"), (b"cookie", b"a=1"), (b"x-a", b"2"), (b"cookie", b"b=2"), (b"x-b", b"3"),
        (b"x-forwarded-for", b"127.0.0.1"), (b"x-forwarded-host", b"h:1"), (b"x-forwarded-proto", b"http"),
        (b"forwarded", b'for=127.0.0.1;host="h:1";proto=http'), (b"via", b"1.1 greenroom"),
        (b"x-actor-request-id", b"fresh"),
    ]  # fmt: skip
    assert head.headers == [
        (b"x-b", b"1"), (b"set-cookie", b"a=1"), (b"x-a", b"\xe4"), (b"set-cookie", b"b=2"), (b"x-b", b"2"),
        (b"content-length", b"0"),
    ]  # fmt: skip


async def test_path_form(rig: Rig) -> None:
    """The path form strips its prefix and puts the answer into a sandbox."""
    seen: list[bytes] = []

    async def script(wire: Wire, _: int) -> None:
        seen.append((await wire.head()).target)
        await wire.write(OK.replace(b"\r\n\r\n", b"\r\nSet-Cookie: a=1\r\n\r\n"))

    await rig.actor(script)
    rig.plan = replace(rig.plan, prefix="/standby/b--h", is_sandboxed=True)
    head, _ = await rig.ask(b"GET /standby/b--h?token=x HTTP/1.1\r\nHost: h\r\n\r\n")
    assert seen == [b"/"]
    assert head.headers == [(b"content-length", b"2"), (b"content-security-policy", b"sandbox")]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"SSH-2.0-OpenSSH\r\n", id="another protocol"),
        pytest.param(b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", id="bare line feeds"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", id="length twice"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", id="both framings"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", id="head too long"),
        pytest.param(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", id="101 unasked"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", id="broken in the first read"),
    ],
)
async def test_what_is_not_http(rig: Rig, answer: bytes) -> None:
    """Answers that can't be trusted are refused whole, before anything reached the caller."""

    async def script(wire: Wire, _: int) -> None:
        await wire.head()
        await wire.write(answer)
        await wire.eof()

    await rig.actor(script)
    assert (await rig.ask(GET))[1] == b"UpstreamInvalid"
    assert isinstance(await rig.forwarded.get(), UpstreamInvalid)


async def test_no_first_byte_in_time(rig: Rig) -> None:
    """The deadline for the first byte holds, and the Actor's connection is cut."""
    ended = asyncio.Event()

    async def script(wire: Wire, _: int) -> None:
        await wire.head()
        await wire.eof()
        ended.set()

    await rig.actor(script)
    rig.first_byte_secs = 0.2
    assert (await rig.ask(GET))[1] == b"UpstreamTimeout"
    assert isinstance(await rig.forwarded.get(), UpstreamTimeout)
    await ended.wait()


@pytest.mark.parametrize(
    ("request_head", "answer", "length"),
    [
        pytest.param(HEAD, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b"9", id="HEAD"),
        pytest.param(HEAD, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", None, id="HEAD, chunked"),
        pytest.param(GET, b"HTTP/1.1 204 No Content\r\n\r\n", None, id="204"),
        pytest.param(GET, b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", None, id="204 with a length"),
        pytest.param(GET, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\nETag: x\r\n\r\n", None, id="304"),
    ],
)
async def test_answers_without_body(rig: Rig, request_head: bytes, answer: bytes, length: bytes | None) -> None:
    """They end with their head, and both connections serve the next request."""

    async def script(wire: Wire, _: int) -> None:
        await wire.head()
        await wire.write(answer)
        await always_ok(wire, 1)

    await rig.actor(script)
    client = await rig.client()
    await client.write(request_head)
    assert (await client.head()).one(b"content-length") == length
    await client.write(GET)
    assert (await client.message())[1] == b"ok"
    assert rig.connections == 1


async def test_informational_answers_are_not_final(rig: Rig) -> None:
    """100 and 103 may come first, in any number."""

    async def script(wire: Wire, _: int) -> None:
        await wire.head()
        await wire.write(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
        await wire.write(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)

    await rig.actor(script)
    assert (await rig.ask(GET))[1] == b"ok"


async def test_expect_continue_is_the_actors_to_grant(rig: Rig) -> None:
    """The caller's 100 comes when the Actor says so, and then the body goes up."""
    granted = asyncio.Event()

    async def script(wire: Wire, _: int) -> None:
        head = await wire.head()
        assert head.one(b"expect") == b"100-continue"
        granted.set()
        await wire.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await wire.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n" + await wire.body(head))

    await rig.actor(script)
    client = await rig.client()
    await client.write(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    assert (await client.head()).status == 100
    assert granted.is_set()
    await client.write(b"abc")
    assert (await client.message())[1] == b"abc"


async def test_expect_continue_is_the_actors_to_refuse(rig: Rig) -> None:
    """An Actor that refuses the body by its head alone is heard before a 100 was said."""

    async def script(wire: Wire, _: int) -> None:
        await wire.head()
        await wire.write(b"HTTP/1.1 417 x\r\nContent-Length: 2\r\n\r\nno")
        await wire.eof()

    await rig.actor(script)
    head, body = await rig.ask(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    assert (head.status, body, head.one(b"connection")) == (417, b"no", b"close")


async def test_expect_continue_without_a_word(rig: Rig) -> None:
    """An Actor that knows no 100 gets the body after a moment all the same."""

    async def script(wire: Wire, _: int) -> None:
        head = await wire.head()
        await wire.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n" + await wire.body(head))

    await rig.actor(script)
    client = await rig.client()
    await client.write(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    assert (await client.head()).status == 100
    await client.write(b"abc")
    assert (await client.message())[1] == b"abc"


async def test_two_hosts_are_refused(rig: Rig) -> None:
    """A request that may not be passed on reaches no Actor."""
    await rig.actor(always_ok)
    assert (await rig.ask(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"))[1] == b"InvalidRequest"
    assert isinstance(await rig.forwarded.get(), InvalidRequest)
    assert rig.connections == 0


async def test_a_slow_answer_is_watched(rig: Rig) -> None:
    """An answer that takes longer than the first moment, and one whose body follows later, come whole."""

    async def script(wire: Wire, _: int) -> None:
        await wire.head()
        await asyncio.sleep(0.1)
        await wire.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
        await asyncio.sleep(0.1)
        await wire.write(b"k")
        await wire.eof()

    await rig.actor(script)
    assert (await rig.ask(GET))[1] == b"ok"
    assert rig.upstreams.idle_connections(rig.plan.address) == 1
