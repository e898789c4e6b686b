"""Redis as the adapters use it: commands and scripts on a shared line, with its trouble translated and counted."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha1
from typing import Any

from redis.exceptions import NoScriptError, ResponseError

from gateway.state.ports import NoLongerLeader
from gateway.state.redis.address import RedisAddress
from gateway.state.redis.keys import Keys
from gateway.state.redis.line import PATIENCE_SECS, Line, StartTask, Word, unavailable
from gateway.state.redis.lua import FENCED


@dataclass(frozen=True, slots=True)
class Script:
    """A named Lua script; ``digest`` is what Redis knows it by once it has seen it."""

    name: str
    source: str
    digest: str

    @classmethod
    def named(cls, name: str, *sources: str) -> Script:
        """One script out of several pieces, such as functions and what uses them."""
        source = "\n".join(piece.strip() for piece in sources) + "\n"
        return cls(name, source, sha1(source.encode(), usedforsecurity=False).hexdigest())


class RedisClient:
    """
    One per process and Redis; made by ``open_client``.

    Answers are as Redis gives them: bytes, integers, None and lists of these. All methods raise StateUnavailable.
    """

    def __init__(self, address: RedisAddress, keys: Keys, start_task: StartTask) -> None:
        self.address = address
        self.keys = keys
        self.start_task = start_task
        self.issued: Counter[str] = Counter()
        """How many commands were issued since it was made, by script or command."""
        self._line = Line(address, start_task)
        self._waiting_line = Line(address, start_task)

    @property
    def trouble(self) -> str | None:
        """Why the last call failed; None while all is well."""
        return self._line.trouble

    async def call(self, script: Script, keys: Sequence[str], args: Sequence[Word] = ()) -> Any:
        """
        What *script* answers. Raises NoLongerLeader where it refuses a write whose fencing token is old.

        A call whose answer did not come may have had its effect all the same.
        """
        words = (len(keys), *keys, *args)
        try:
            return await self._ask(script.name, "EVALSHA", script.digest, *words)
        except NoScriptError:  # it has been restarted, or another one has taken over
            return await self._answered(script.name, "EVAL", script.source, *words)
        except ResponseError as error:
            raise self._refused(script.name, error) from error

    async def command(self, *words: Word) -> Any:
        """What one command answers."""
        return await self._answered(str(words[0]), *words)

    async def wait_in_list(self, key: str, timeout_secs: float) -> bool:
        """
        Take the first element of the list at *key*, or wait for one: whether one came. One wait at a time.

        A wait that is broken off gives its connection up, so that Redis serves the next one; an element that came in
        the same moment may be lost.
        """
        self.issued["BLPOP"] += 1
        is_answered = False
        try:
            answer = await self._waiting_line.ask(
                "BLPOP", key, f"{max(timeout_secs, 0.001):.3f}", patience_secs=timeout_secs + PATIENCE_SECS
            )
            is_answered = True
        except ResponseError as error:
            raise self._refused("BLPOP", error) from error
        finally:
            if not is_answered:
                self._waiting_line.hang_up()
        return answer is not None

    def close(self) -> None:
        """Nothing can be asked afterwards."""
        self._line.close()
        self._waiting_line.close()

    async def _answered(self, name: str, *words: Word) -> Any:
        try:
            return await self._ask(name, *words)
        except ResponseError as error:
            raise self._refused(name, error) from error

    async def _ask(self, name: str, *words: Word) -> Any:
        self.issued[name] += 1
        return await self._line.ask(*words)

    def _refused(self, name: str, error: ResponseError) -> Exception:
        if FENCED in str(error):
            return NoLongerLeader("Another autoscaler leads by now; this one's word doesn't count any more.")
        return unavailable(self.address, f"it refuses {name} ({error})")


@asynccontextmanager
async def open_client(address: RedisAddress, *, namespace: str) -> AsyncIterator[RedisClient]:
    """A client for as long as the block lasts; it connects when it is first used."""
    failure: BaseException | None = None
    async with asyncio.TaskGroup() as group:
        client = RedisClient(address, Keys(namespace=namespace, database=address.database), group.create_task)
        try:
            yield client
        except BaseException as error:  # raised outside of the group, which would wrap it
            failure = error
        finally:
            client.close()
    if failure is not None:
        raise failure
