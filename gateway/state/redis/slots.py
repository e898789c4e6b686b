"""Slot leases on Redis: the ledger as one script, and its messages by a channel for each borrower."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from gateway.core.slot_leases import (
    LEASE_SECS,
    NEED_SECS,
    Heard,
    SlotAnswer,
    SlotLease,
    SlotMessage,
    SlotRequest,
    SlotWord,
)
from gateway.state.redis.client import RedisClient, Script
from gateway.state.redis.ears import Ears
from gateway.state.redis.keys import SLOTS_SECS
from gateway.state.redis.line import Word
from gateway.state.redis.slots_script import HOLDERS, MOMENT, SETTLE, WITHDRAW
from gateway.state.subscriptions import QUEUE_BOUND

_SETTLE = Script.named("settle_slots", MOMENT, SETTLE)
_HOLDERS = Script.named("slot_holders", MOMENT, HOLDERS)
_WITHDRAW = Script.named("withdraw_slots", WITHDRAW)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When and by which server a call is to be thought of as carried out; in tests alone."""

    now_secs: float
    server: str
    age_secs: float


class RedisSlots:
    """
    The SlotLeases port. Time is Redis' own, and another run of a Redis server is another ledger.

    *moment*, if given, says both instead.
    """

    def __init__(self, client: RedisClient, ears: Ears, *, moment: Callable[[], Moment] | None = None) -> None:
        self._client = client
        self._ears = ears
        self._moment = moment

    async def settle(self, request: SlotRequest) -> SlotAnswer:
        key = self._client.keys.key
        keys = [key("slots"), *(key("slots", part) for part in ("borrowers", "awaited", "withdrawn"))]
        keys += [self.run_key(run_id) for run_id in request.claims]
        words: list[Word] = [
            *self._moment_words(),
            *(_ms(LEASE_SECS), _ms(NEED_SECS), _ms(SLOTS_SECS), self.channel("")),
            *(request.borrower, request.number, request.epoch, request.seen),
            *(int(request.is_full), _ms_if_known(request.complete_in_secs), json.dumps(request.knows)),
        ]
        for run_id, claim in request.claims.items():
            words += [run_id, claim.limit, claim.keeps, claim.needs, claim.likes, int(claim.age)]
        return _answer(request, await self._client.call(_SETTLE, keys, words))

    async def withdraw(self, borrower: str) -> None:
        key = self._client.keys.key
        keys = [key("slots", part) for part in ("borrowers", "awaited", "withdrawn")]
        await self._client.call(_WITHDRAW, keys, [borrower, _ms(SLOTS_SECS)])

    async def holders(self, run_id: str) -> frozenset[str] | None:
        key = self._client.keys.key
        keys = [key("slots"), key("slots", "borrowers"), self.run_key(run_id)]
        word, *names = await self._client.call(_HOLDERS, keys, [*self._moment_words(), _ms(LEASE_SECS)])
        return frozenset(name.decode() for name in names) if word == b"known" else None

    def watch(self, borrower: str) -> AbstractAsyncContextManager[AsyncIterator[SlotMessage]]:
        return self._watch(borrower)

    @asynccontextmanager
    async def _watch(self, borrower: str) -> AsyncIterator[AsyncIterator[SlotMessage]]:
        async with self._ears.listen(self.channel(borrower), bound=QUEUE_BOUND) as heard:
            yield _messages(heard.read())

    def run_key(self, run_id: str) -> str:
        """Where it stands who has how many slots of a run."""
        return self._client.keys.key("slots", "run", run_id)

    def channel(self, borrower: str) -> str:
        """Where *borrower* is told what it did not ask for."""
        return self._client.keys.channel("slots", borrower)

    def _moment_words(self) -> tuple[Word, Word, Word]:
        if self._moment is None:
            return "", "", ""
        moment = self._moment()
        return _ms(moment.now_secs), moment.server, _ms(min(moment.age_secs, LEASE_SECS))


def _answer(request: SlotRequest, words: list[Any]) -> SlotAnswer:
    heard = Heard(words[0].decode())
    if heard is not Heard.DONE:
        return SlotAnswer(heard=heard)
    _, epoch, joins, opens_in_ms, names, figures = words
    leases = {
        run_id: SlotLease(slots=figures[at], others=figures[at + 1], unmet=figures[at + 2])
        for at, run_id in zip(range(0, len(figures), 3), request.claims, strict=True)
    }
    return SlotAnswer(
        heard=heard,
        epoch=epoch.decode(),
        joins=joins,
        opens_in_secs=opens_in_ms / 1000,
        borrowers=tuple(sorted({name.decode() for name in names})),
        leases=leases,
    )


async def _messages(heard: AsyncIterator[bytes]) -> AsyncIterator[SlotMessage]:
    async for words in heard:
        word, *rest = words.decode().split(" ")
        match rest:
            case [run_id, *figures]:
                count, number, unmet = (*(int(figure) for figure in figures), 0, 0)[:3]
                yield SlotMessage(word=SlotWord(word), run_id=run_id, count=count, number=number, unmet=unmet)
            case _:
                yield SlotMessage(word=SlotWord(word))


def _ms(secs: float) -> int:
    return round(secs * 1000)


def _ms_if_known(secs: float | None) -> Word:
    return "" if secs is None else math.ceil(secs * 1000)
