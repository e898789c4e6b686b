"""Borrows slots for one gateway: makes the calls that its ``QuotaBook`` asks for, and hears what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from gateway.boot_clock import boot_time
from gateway.core.standby import PoolKey
from gateway.proxy.slot_quotas import QuotaBook
from gateway.proxy.slots import SlotDesk
from gateway.state.ports import StateUnavailable
from gateway.state.slot_ports import SlotLeases
from gateway.state.steady import steadily

_log = logging.getLogger(__name__)


class SlotBroker:
    """
    Keeps the quotas of *desk* true, while ``run`` goes on; before, this gateway has no slots at all.

    *clock* goes on while the machine sleeps, since what it has borrowed is lent to others meanwhile. *poke* makes the
    autoscaler look, where there are not enough slots.
    """

    def __init__(
        self,
        gateway_id: str,
        desk: SlotDesk,
        leases: SlotLeases,
        *,
        poke: Callable[[], None],
        clock: Callable[[], float] = boot_time,
    ) -> None:
        self.calls = 0
        """How many were made."""
        self._gateway_id = gateway_id
        self._leases = leases
        self._clock = clock
        self._book = QuotaBook(gateway_id, desk, poke=poke)
        self._news = asyncio.Event()
        self._is_cut_off = False
        desk.on_change, desk.quota_clock = self._changed, clock

    def _changed(self, key: PoolKey) -> None:
        self._book.changed(key)
        self._news.set()

    def retire(self) -> None:
        """The gateway stops: what is not in use is given back at once, the rest as it ends."""
        self._book.retire()
        self._news.set()

    async def run(self) -> None:
        """Until cancelled. Trouble with the store is waited out; meanwhile what is held is used."""
        async with asyncio.TaskGroup() as group:
            group.create_task(steadily("the news of slots", self._listen))
            group.create_task(self._settle())

    async def withdraw(self) -> None:
        """Nothing is in flight any more. Raises StateUnavailable; then it counts until its time is over."""
        await self._leases.withdraw(self._gateway_id)

    async def _listen(self) -> None:
        async with self._leases.watch(self._gateway_id) as messages:
            async for message in messages:
                self._book.told(message, self._clock())
                self._news.set()

    async def _settle(self) -> None:
        while True:
            self._news.clear()
            request = self._book.next_call(self._clock())
            if request is None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._book.secs_to_next(self._clock())):
                        await self._news.wait()
                continue
            self.calls += 1
            try:
                answer = await self._leases.settle(request)
            except StateUnavailable as error:
                self._tell_cut_off(error)
                self._book.failed(request, self._clock())
            else:
                self._tell_cut_off(None)
                self._book.answered(request, answer, self._clock())

    def _tell_cut_off(self, error: StateUnavailable | None) -> None:
        if error is not None and not self._is_cut_off:
            _log.warning("no slots can be borrowed, those at hand are used on for a while: %s", error)
        elif error is None and self._is_cut_off:
            _log.info("slots are borrowed again")
        self._is_cut_off = error is not None
