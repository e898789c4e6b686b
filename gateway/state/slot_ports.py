"""The port of slot leases, a part of signals (``Signals.slots``)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from gateway.core.slot_leases import SlotAnswer, SlotMessage, SlotRequest


class SlotLeases(Protocol):
    """
    Slots of runs, lent to gateways so that no run is above its limit over all of them; ``SlotLedger`` has the rules.

    A call that was not answered may have been carried out, or may be later; it is harmless, as each call says all of
    the runs that it names.
    """

    async def settle(self, request: SlotRequest) -> SlotAnswer:
        """Tell what is kept and needed, for any number of runs in one call, and hear what there is."""
        ...

    async def withdraw(self, borrower: str) -> None:
        """This borrower's process has ended, so all that it held is free."""
        ...

    async def holders(self, run_id: str) -> frozenset[str] | None:
        """
        The borrowers that may have something in flight in this run, heard from or not; None: nobody can tell yet, since
        what was lent may have been lost.
        """
        ...

    def watch(self, borrower: str) -> AbstractAsyncContextManager[AsyncIterator[SlotMessage]]:
        """What the ledger tells *borrower* without being asked; may be lost."""
        ...
