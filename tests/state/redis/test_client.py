"""The line to a real Redis: answers in order, trouble in words, every way in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from certificates import Authority
from redis_server import RedisServer, free_port, new_namespace, running, sentinel
from state.redis.waiting import until, until_answered

from gateway.state.ports import StateUnavailable
from gateway.state.redis.address import parse_address
from gateway.state.redis.client import RedisClient, Script, open_client
from gateway.state.redis.line import PATIENCE_SECS

pytestmark = pytest.mark.slow

ECHO = Script.named("echo", "return {KEYS[1], ARGV[1], 3}")


@pytest.fixture
async def client(redis_server: RedisServer) -> AsyncIterator[RedisClient]:
    """One whose keys nobody else has."""
    async with open_client(parse_address(redis_server.url(2)), namespace=new_namespace()) as client:
        yield client


async def test_scripts_and_commands(client: RedisClient, redis_server: RedisServer) -> None:
    """Answers are what Redis says, also of a script that it has forgotten; all are counted by name."""
    assert await client.call(ECHO, ["k"], ["ünï"]) == [b"k", "ünï".encode(), 3]
    with redis_server.client() as admin:
        admin.script_flush()
    assert await client.call(ECHO, ["k"], [b"\x00\xff"]) == [b"k", b"\x00\xff", 3]
    assert await client.command("GET", client.keys.key("none")) is None
    assert client.issued == {"echo": 4, "GET": 1}  # twice its digest was not known
    assert client.trouble is None


async def test_many_share_one_line(client: RedisClient, redis_server: RedisServer) -> None:
    """Each of many callers at once gets his own answer, also when others have gone before theirs came."""
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(client.command("ECHO", str(number))) for number in range(200)]
        await asyncio.sleep(0)
        for number in range(0, 200, 3):
            asked[number].cancel()
    answers = [None if one.cancelled() else int(one.result()) for one in asked]
    assert answers == [None if number % 3 == 0 else number for number in range(200)]
    with redis_server.client() as admin:
        assert sum(1 for other in admin.client_list() if other["db"] == "2") == 1


async def test_refusals_are_told(client: RedisClient) -> None:
    """What Redis refuses is StateUnavailable with its words, and the line goes on."""
    with pytest.raises(StateUnavailable, match=r"it refuses NOSUCH .*unknown command"):
        await client.command("NOSUCH")
    with pytest.raises(StateUnavailable, match="it refuses broken"):
        await client.call(Script.named("broken", "return redis.call('NOSUCH')"), [])
    assert await client.command("PING") == b"PONG"


async def test_errors_of_the_block_stay_what_they_are(redis_server: RedisServer) -> None:
    """What is raised where the client is used is not wrapped in a group."""
    used: list[RedisClient] = []

    async def use() -> None:
        async with open_client(parse_address(redis_server.url()), namespace="x") as client:
            await client.command("PING")
            used.append(client)
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await use()
    client = used[0]
    with pytest.raises(StateUnavailable, match="it was closed"):
        await client.command("PING")


async def test_waiting_for_a_list(client: RedisClient, redis_server: RedisServer) -> None:
    """An element that is there is taken at once, one that comes as it comes; a wait broken off takes nothing."""
    key = client.keys.key("pokes")
    assert await client.wait_in_list(key, 0.01) is False
    await client.command("RPUSH", key, "1")
    assert await client.wait_in_list(key, 5) is True
    async with asyncio.TaskGroup() as group:
        wait = group.create_task(client.wait_in_list(key, 30))
        await _until_blocked(redis_server, 1)
        wait.cancel()
    await _until_blocked(redis_server, 0)
    await client.command("RPUSH", key, "1")
    assert await client.wait_in_list(key, 5) is True
    async with asyncio.TaskGroup() as group:
        wait = group.create_task(client.wait_in_list(key, 30))
        await _until_blocked(redis_server, 1)
        await client.command("RPUSH", key, "1")
    assert wait.result() is True


async def _until_blocked(server: RedisServer, clients: int) -> None:
    with server.client() as admin:
        await until(lambda: admin.info("clients")["blocked_clients"] == clients)


async def test_a_redis_that_was_never_there(tmp_path: Path) -> None:
    """Who asks hears why, and that at once; when it has come, he is served."""
    server = RedisServer(folder=tmp_path / "redis")
    async with open_client(parse_address(server.url()), namespace="x") as client:
        with pytest.raises(StateUnavailable, match=rf"127\.0\.0\.1:{server.port} can't be used: .*signals_url"):
            await client.command("PING")
        assert client.trouble is not None
        server.start()
        try:
            await until_answered(lambda: client.command("PING"))
            assert client.trouble is None
        finally:
            server.kill()


@pytest.mark.slow
async def test_a_redis_that_says_nothing(tmp_path: Path) -> None:
    """The first who waits gives up after a while, and all with him; those who come in the pause hear it at once."""
    with running(tmp_path / "redis") as server:
        async with open_client(parse_address(server.url()), namespace="x") as client:
            await client.command("PING")
            server.pause()
            time = asyncio.get_running_loop().time
            began = time()
            failures = await asyncio.gather(*(client.command("PING") for _ in range(3)), return_exceptions=True)
            assert all(isinstance(failure, StateUnavailable) for failure in failures)
            assert PATIENCE_SECS - 0.1 < time() - began < 2 * PATIENCE_SECS
            began = time()
            with pytest.raises(StateUnavailable, match="it does not answer in time"):
                await client.command("PING")
            assert time() - began < PATIENCE_SECS / 2
            server.resume()
            await until_answered(lambda: client.command("PING"))


@pytest.mark.slow
async def test_a_redis_that_is_slow_by_a_second(tmp_path: Path) -> None:
    """Is waited for."""
    with running(tmp_path / "redis") as server:
        async with open_client(parse_address(server.url()), namespace="x") as client:
            await client.command("PING")
            server.pause()
            asyncio.get_running_loop().call_later(1.0, server.resume)
            assert await client.command("PING") == b"PONG"


async def test_a_restart_is_noticed(tmp_path: Path) -> None:
    """Whoever asks afterwards is served by the new one, without a script that he used before having to be known."""
    with running(tmp_path / "redis") as server:
        async with open_client(parse_address(server.url()), namespace="x") as client:
            await client.call(ECHO, ["k"], ["v"])
            server.restart()
            await until_answered(lambda: client.command("PING"))
            assert await client.call(ECHO, ["k"], ["v"]) == [b"k", b"v", 3]


async def test_passwords(tmp_path: Path) -> None:
    """The right one opens; a wrong one is told without a word of it."""
    with running(tmp_path / "redis", password="hunter2") as server:
        async with open_client(parse_address(server.url(1)), namespace="x") as client:
            assert await client.command("PING") == b"PONG"
        for password in ("hunter3", ""):
            address = parse_address(server.url().replace("hunter2", password))
            async with open_client(address, namespace="x") as client:
                with pytest.raises(
                    StateUnavailable, match=r"invalid username-password pair|Authentication required"
                ) as raised:
                    await client.command("PING")
            assert "hunter" not in str(raised.value)


async def test_tls(tmp_path: Path) -> None:
    """With the authority that issued the server's certificate, and with no other."""
    authority = Authority()
    certificate, _ = authority.write(tmp_path / "tls", "server", "localhost")
    ours, another = tmp_path / "ours.pem", tmp_path / "another.pem"
    ours.write_text(authority.pem)
    another.write_text(Authority().pem)
    with running(tmp_path / "redis", certificate=certificate, authority=ours) as server:
        async with open_client(parse_address(server.url()), namespace="x") as client:
            assert await client.command("PING") == b"PONG"
        address = parse_address(server.url().replace(str(ours), str(another)))
        async with open_client(address, namespace="x") as client:
            with pytest.raises(StateUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
                await client.command("PING")
        async with open_client(parse_address(f"redis://localhost:{server.port}"), namespace="x") as client:
            with pytest.raises(StateUnavailable):
                await client.command("PING")


async def test_a_unix_socket(tmp_path_factory: pytest.TempPathFactory) -> None:
    """By its path, which is short, as the kernel wants it."""
    folder = tmp_path_factory.mktemp("r")
    path = folder / "s"
    with running(folder, options=("--unixsocket", str(path))):
        async with open_client(parse_address(f"unix://{path}?db=1"), namespace="x") as client:
            assert await client.command("PING") == b"PONG"


async def test_a_replica_takes_no_writes(tmp_path: Path) -> None:
    """Whoever was the master before a failover refuses, and the next call connects anew, to whom it then leads."""
    with running(tmp_path / "redis") as server, server.client() as admin:
        async with open_client(parse_address(server.url()), namespace="x") as client:
            await client.command("SET", "{x}:key", "1", "EX", 60)
            before = await client.command("CLIENT", "ID")
            admin.execute_command("REPLICAOF", "127.0.0.1", str(free_port()))
            for write in (
                client.command("SET", "{x}:key", "2", "EX", 60),
                client.call(Script.named("set", "return redis.call('SET', KEYS[1], '3', 'EX', 60)"), ["{x}:key"]),
            ):
                with pytest.raises(StateUnavailable, match="read only replica"):
                    await write
                after = await until_answered(lambda: client.command("CLIENT", "ID"))
                assert after > before
                before = after
            admin.execute_command("REPLICAOF", "NO", "ONE")
            assert await client.command("SET", "{x}:key", "4", "EX", 60) == b"OK"


async def test_sentinels_that_know_nothing(tmp_path: Path) -> None:
    """Are told apart from a Redis that is not there: by none of them, or by one who knows no such service."""
    with running(tmp_path / "redis") as master, sentinel(tmp_path / "sentinel", master=master, port=free_port()) as one:
        for url, says in (
            (f"redis+sentinel://127.0.0.1:{free_port()}?service=main", "no Sentinel tells where it is .Error 111"),
            (f"redis+sentinel://127.0.0.1:{one.port}?service=other", "no Sentinel tells where it is.*not known there"),
        ):
            async with open_client(parse_address(url), namespace="x") as client:
                with pytest.raises(StateUnavailable, match=says):
                    await client.command("PING")
                assert client.trouble is not None
