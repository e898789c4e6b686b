"""A pool that sleeps, and so many requests in flight: none, then 200, 500, 1,000, and none again."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections import Counter

from loadtests.server import TOKEN, Server

LEVELS = (200, 500, 1000, 0)
STANDBY = {"idleTimeoutSecs": 5}


def allow_many_files() -> None:
    """Each request in flight is a connection here, one to Greenroom and one to the Actor."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def ramp(server: Server, actor: str, step_secs: float) -> Counter[str]:
    """
    What was answered, by status or trouble; each level is held for *step_secs* by callers who ask again at once.

    A caller who is one too many finishes the request that it has.
    """
    outcomes: Counter[str] = Counter()
    wanted = 0

    async def caller(number: int) -> None:
        while number < wanted:
            outcomes[await _ask(server, actor)] += 1

    async with asyncio.TaskGroup() as group:
        callers: dict[int, asyncio.Task[None]] = {}
        for level in LEVELS:
            wanted = level
            for number in range(level):
                if number not in callers or callers[number].done():
                    callers[number] = group.create_task(caller(number))
            await asyncio.sleep(step_secs if level else 0)
    return outcomes


async def _ask(server: Server, actor: str) -> str:
    request = (
        f"GET / HTTP/1.1\r\nHost: local--{actor}.localhost:{server.port}\r\n"
        f"Authorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
    ).encode()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    except OSError as error:
        return f"no connection: {error.strerror}"
    try:
        writer.write(request)
        answer = await reader.read()
    except OSError as error:
        return f"cut: {error.strerror}"
    finally:
        writer.close()
    if answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"held"):
        return "200"
    return answer[:200].decode("latin-1") or "nothing"
