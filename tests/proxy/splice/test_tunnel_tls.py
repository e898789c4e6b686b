"""Tunnels of callers who come by TLS, which has no end of one direction."""

from __future__ import annotations

import random
import ssl
from pathlib import Path

import pytest
from certificates import Authority
from proxy.splice.tunnel_rig import BINARY, PING, PONG, TEXT, Got, frame, tunnel

from gateway.proxy.websocket import ClosedBy

pytestmark = pytest.mark.timeout(30, method="thread")  # uvloop swallows the signal of the usual method

LOST = 1006
MIB = 1 << 20
Tls = tuple[ssl.SSLContext, ssl.SSLContext]


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """The server's side, and that of a caller who believes it."""
    authority = Authority()
    folder: Path = tmp_path_factory.mktemp("tls")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*authority.write(folder, "server", "tunnel.example"))
    return server, authority.client()


async def test_messages_and_the_close_handshake(tls: Tls) -> None:
    """As without it, large messages included."""
    data = random.Random(1).randbytes(MIB - 100)
    async with tunnel(tls=tls) as rig:
        for _ in range(5):
            rig.caller.send(BINARY, data)
            rig.actor.send(BINARY, data)
        for _ in range(5):
            assert (await rig.actor.get()).payload == data
            assert (await rig.caller.get()).payload == data
        rig.caller.send(PING, b"?")
        assert await rig.actor.get() == Got(PING, b"?", True)
        rig.actor.send(PONG, b"?")
        assert await rig.caller.get() == Got(PONG, b"?", True)
        rig.caller.close(4001, "enough")
        assert (await rig.actor.get()).code == 4001
        rig.actor.close(4001)
        rig.actor.writer.close()
        assert await rig.caller.said_goodbye() == (4001, "")
        end = await rig.end()
    assert (end.by, end.code, end.messages_up, end.messages_down) == (ClosedBy.CLIENT, 4001, 5, 5)


@pytest.mark.parametrize("is_reset", [True, False], ids=["reset", "end of stream"])
async def test_a_caller_that_vanishes(tls: Tls, is_reset: bool) -> None:
    """The Actor is told, and what it sends meanwhile goes nowhere."""
    async with tunnel(tls=tls) as rig:
        rig.caller.send(TEXT, b"hello")
        assert (await rig.actor.get()).payload == b"hello"
        if is_reset:
            rig.caller.reset()
        else:
            rig.caller.writer.close()
        rig.actor.send(TEXT, b"meanwhile")
        assert (await rig.actor.get()).code == 1001
        rig.actor.send(BINARY, bytes(MIB - 100))
        rig.actor.close(1001)
        rig.actor.writer.close()
        end = await rig.end()
    assert (end.by, end.code) == (ClosedBy.CLIENT, LOST)


async def test_an_actor_that_vanishes(tls: Tls) -> None:
    """The caller is told; amid a frame its connection ends."""
    async with tunnel(tls=tls) as rig:
        rig.actor.hang_up()
        assert (await rig.caller.get()).code == 1011
        rig.caller.close(1011)
        assert await rig.caller.rest() == b""
    async with tunnel(tls=tls) as rig:
        half = frame(BINARY, bytes(1000), is_masked=False)[:500]
        rig.actor.writer.write(half)
        rig.actor.hang_up()
        assert await rig.caller.rest() == half
        end = await rig.end()
    assert (end.by, end.code) == (ClosedBy.ACTOR, LOST)


async def test_a_fault_is_told(tls: Tls) -> None:
    """The caller reads why before its connection ends."""
    async with tunnel(tls=tls) as rig:
        rig.caller.send(3)
        assert (await rig.actor.get()).code == 1002
        rig.actor.close(1002)
        rig.actor.writer.close()
        got = await rig.caller.get()
        assert (got.code, got.reason) == (1002, "the reserved opcode 3")
        assert await rig.caller.rest() == b""
        end = await rig.end()
    assert (end.by, end.code) == (ClosedBy.CLIENT, 1002)


async def test_another_protocol_ends_when_the_actor_has_said_all(tls: Tls) -> None:
    """All of it arrives."""
    data = random.Random(2).randbytes(4 * MIB)
    async with tunnel(b"some-protocol", tls=tls) as rig:
        rig.caller.writer.write(b"all, please")
        assert await rig.actor.reader.readexactly(11) == b"all, please"
        rig.actor.writer.write(data)
        rig.actor.hang_up()
        assert await rig.caller.rest() == data
        rig.caller.writer.close()
        end = await rig.end()
    assert (end.by, end.code) == (ClosedBy.ACTOR, 1005)


async def test_another_protocol_ends_when_the_caller_ends(tls: Tls) -> None:
    """What he had sent arrives."""
    async with tunnel(b"some-protocol", tls=tls) as rig:
        rig.caller.writer.write(b"all that there is")
        rig.caller.writer.close()
        assert await rig.actor.rest() == b"all that there is"
        rig.actor.writer.close()
        end = await rig.end()
    assert end.by is ClosedBy.CLIENT
