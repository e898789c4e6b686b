"""
No I/O: which of several workers sends the events of held sockets.

Of those that offer themselves one *leads*, as long as it serves and is not stuck. Another one that is to lead first
follows: it watches what the leader watches, until it says that it does; then the leader is dismissed. Each method takes
a fact and returns what is to be told to whom; times are seconds of a clock that only goes forward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

SILENT_SECS = 4.0  # some words of those that workers say each second

W = TypeVar("W")


@dataclass(frozen=True, slots=True)
class Follow(Generic[W]):
    """Watch all that is held, say when you do, and lead from then on."""

    worker: W


@dataclass(frozen=True, slots=True)
class StandBy(Generic[W]):
    """Another worker leads; there is nothing to watch."""

    worker: W


@dataclass(frozen=True, slots=True)
class Dismiss(Generic[W]):
    """Watch nothing any more; offer yourself again, if you still serve."""

    worker: W


Order = Follow[W] | StandBy[W] | Dismiss[W]


class SenderChoice(Generic[W]):
    """``leader`` sends the events; ``follower`` is about to, beside it or alone."""

    def __init__(self) -> None:
        self.leader: W | None = None
        self.follower: W | None = None
        self._willing: list[W] = []
        self._alive_at: dict[W, float] = {}  # of those that say so

    @property
    def watching(self) -> tuple[W, ...]:
        """Those that have to hear of sockets that come and go."""
        return tuple(worker for worker in (self.leader, self.follower) if worker is not None)

    def sends(self, worker: W) -> bool:
        """Whether frames that are sent again and again are taken from *worker*: of two that watch, from one."""
        return (self.leader if self.leader is not None else self.follower) in (worker, None)

    def offers(self, worker: W, now: float) -> list[Order[W]]:
        """It serves, and would lead."""
        if worker not in self._willing:
            self._willing.append(worker)
        orders = self._choose(now)
        return orders if worker in self.watching else [*orders, StandBy(worker)]

    def watches(self, worker: W) -> list[Order[W]]:
        """It watches all that it was told of."""
        if worker != self.follower:
            return []
        before, self.leader, self.follower = self.leader, worker, None
        return [Dismiss(before)] if before is not None else []

    def lets_go(self, worker: W, now: float) -> list[Order[W]]:
        """It is about to end, or stuck: another one is to lead. Until that watches, a leader goes on."""
        if worker in self._willing:
            self._willing.remove(worker)
        dismissed: list[Order[W]] = []
        if worker == self.follower:
            self.follower = None
            dismissed.append(Dismiss(worker))
        return [*dismissed, *self._choose(now)]

    def is_gone(self, worker: W, now: float) -> list[Order[W]]:
        """It has ended."""
        if worker == self.leader:
            self.leader = None
        self._alive_at.pop(worker, None)
        return [order for order in self.lets_go(worker, now) if order.worker != worker]

    def is_alive(self, worker: W, now: float) -> None:
        """It says so, and has promised by that to say so again soon."""
        self._alive_at[worker] = now

    def look(self, now: float) -> list[Order[W]]:
        """To be called now and then: whoever is stuck loses the lead, where another one could have it."""
        orders: list[Order[W]] = []
        for worker in self.watching:
            if worker in self._willing and self._is_stuck(worker, now) and self._best(now, but=worker) is not None:
                orders += self.lets_go(worker, now)
        return orders + self._choose(now)

    def _choose(self, now: float) -> list[Order[W]]:
        """See to it that the leader is one that would lead, or that another one is about to follow it."""
        if self.follower is not None or (self.leader is not None and self.leader in self._willing):
            return []
        self.follower = self._best(now)
        return [Follow(self.follower)] if self.follower is not None else []

    def _best(self, now: float, *, but: W | None = None) -> W | None:
        return next((one for one in self._willing if one != but and not self._is_stuck(one, now)), None)

    def _is_stuck(self, worker: W, now: float) -> bool:
        return worker in self._alive_at and now - self._alive_at[worker] > SILENT_SECS
