"""No I/O: how the slots of a run are shared between gateways, as one of them sees it: its part, what it may spare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.core.lifecycle import Readiness
from gateway.proxy.route_table import LiveRun

_JUST_USED_SECS = 2.0


@dataclass(slots=True, eq=False)
class Borrowed:
    """
    One run. ``held`` is what the ledger has for this gateway, at most: None where that is not known. ``others``: what
    it has for all others. ``unmet``: how many more it was told that this gateway needs, and may grant at any moment.
    """

    run: LiveRun
    held: int | None = 0
    others: int = 0
    unmet: int = 0
    limit: int = 1
    likes_again_at: float = 0.0
    told_at: float = 0.0

    @property
    def keeps(self) -> int:
        """What can't be given back, or is not meant to be."""
        return max(self.run.quota, self.run.taken)

    @property
    def has_more(self) -> bool:
        """Whether there is something to give back."""
        return self.held is None or self.keeps < self.held

    @property
    def may_be_used(self) -> bool:
        """Whether it takes requests, or will soon."""
        route = self.run.route
        is_placed = route.address is not None and route.readiness in (Readiness.STARTING, Readiness.SERVING)
        return is_placed and not self.run.has_refused and not self.run.is_gone


@dataclass(frozen=True, slots=True)
class House:
    """So many *gateways* share the runs; 0: nobody has told yet."""

    gateways: int

    def part_of(self, limit: int) -> int:
        """The fair part of each."""
        return limit // max(1, self.gateways)

    def is_scarce(self, limit: int) -> bool:
        """Whether slots are too few to keep any that are not in use, e.g. 5 of them with 3 gateways."""
        return limit < 2 * self.gateways and self.gateways > 1

    def quota_after_yielding(self, one: Borrowed, count: int, unused_secs: float) -> int:
        """
        Others need *count* slots: idle ones go, then those in use beyond the fair part, as their requests end.

        The last one stays where it was just used, unless slots are scarce.
        """
        run = one.run
        is_used = run.taken > 0 or unused_secs < _JUST_USED_SECS
        last = 1 if is_used and not self.is_scarce(one.limit) else 0
        idle = min(count, max(0, run.quota - max(run.taken, last)))
        quota = run.quota - idle
        if count > idle:
            quota = max(quota - (count - idle), min(quota, self.part_of(one.limit)))
        return quota

    def spread(self, waiting: int, runs: Sequence[Borrowed], *, turn: int) -> dict[Borrowed, int]:
        """
        How many more to ask of each run for those that wait: what seems free first, then of others, in turn.

        *turn* is another number each time, so that it is not always the same run that is asked first.
        """
        extra: dict[Borrowed, int] = {}
        usable = [one for one in runs if one.may_be_used]
        waiting -= sum(max(0, one.run.quota - one.run.taken) for one in usable)
        # One whose slots are to go to others asks for none before they have gone.
        able = [one for one in usable if one.run.taken <= one.run.quota < one.limit]
        for one in sorted(able, key=lambda one: one.others):
            count = min(waiting, one.limit - one.keeps - one.others)
            if count > 0:
                extra[one] = count
                waiting -= count
        for index in range(len(able) if waiting > 0 else 0):
            one = able[(index + turn) % len(able)]
            count = min(waiting, one.limit - one.keeps - extra.get(one, 0), max(1, self.part_of(one.limit)))
            if count > 0:
                extra[one] = extra.get(one, 0) + count
                waiting -= count
        return extra
