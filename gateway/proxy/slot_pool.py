"""No I/O: what the slot desk keeps of one pool: who waits, what was set for it, and the sums of its demand."""

from __future__ import annotations

import math

from gateway.core.demand import PoolDemand
from gateway.core.standby import Generation
from gateway.proxy.route_table import LiveRun
from gateway.proxy.waiting_room import WaitingRoom


class SlotPool:
    """What a ``SlotDesk`` keeps of one pool."""

    __slots__ = (
        "arrivals", "began_secs", "desired", "finished", "flown_secs", "freeze_after_secs", "generation",
        "idle_timeout_secs", "is_letting_through", "limit", "lone", "refused", "room", "seen_changes", "serving",
        "waited_until", "waiting_secs", "want",
    )  # fmt: skip

    def __init__(self, room_size: int, now: float) -> None:
        self.began_secs = self.waited_until = now
        self.arrivals = self.finished = self.refused = 0
        self.waiting_secs = 0.0
        # Less the moment at which each request took its slot, plus that at which it gave it back: with those that fly
        # now times now, it is the sum of all their times, for one addition at each end of a request.
        self.flown_secs = 0.0
        self.room = WaitingRoom(room_size)
        self.limit = 1
        self.desired = 1
        self.idle_timeout_secs = math.inf
        self.freeze_after_secs = math.inf
        self.generation: Generation | None = None
        self.is_letting_through = False
        # Who may be asked one after the other, and whether it is of a former build: by what the route table said when
        # it had seen so many changes.
        self.serving: tuple[tuple[bool, list[LiveRun]], ...] = ()
        self.lone: LiveRun | None = None  # the only one of these, where it is of the present build
        self.seen_changes = -1
        self.want: object = None  # what all the above was last set by

    def waits_until(self, now: float) -> None:
        """Add up the waiting so far; before whatever changes who waits."""
        self.waiting_secs += len(self.room) * (now - self.waited_until)
        self.waited_until = now

    def demand(self, in_flight: int, now: float) -> PoolDemand:
        """All that is told of it."""
        self.waits_until(now)
        return PoolDemand(
            in_flight=in_flight,
            waiting=len(self.room),
            in_flight_secs=self.flown_secs + in_flight * now,
            waiting_secs=self.waiting_secs,
            arrivals=self.arrivals,
            finished=self.finished,
            refused=self.refused,
            began_secs=self.began_secs,
        )
