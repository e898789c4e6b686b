"""
No I/O: which pools are left alone for a while because their runs never serve, or crash soon after, and for how long.

A pool of which three starts in a row did not serve is quarantined: nothing is started for 10 s, then one attempt, and
each that fails doubles the pause, up to 300 s. So is one of which three runs within five minutes failed before they had
served for a minute, each begun after the one before had failed. A start that serves ends it; after crashes a run must
have served for that minute. What is known is of one generation: a new build begins anew. So does a new leader, who
knows of no failures: three starts more are soon made, and nothing of it has to be kept anywhere.

All times are seconds on one monotonic clock, passed in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from gateway.core.standby import Generation, PoolKey

FAILED_STARTS = 3
CRASHES = 3
CRASH_WINDOW_SECS = 300.0
SOON_SECS = 60.0
FIRST_PAUSE_SECS = 10.0
LONGEST_PAUSE_SECS = 300.0
_UNASKED_PAUSE_SECS = 2.0
_FORGET_SECS = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunNews:
    """
    What became of a pool's run: it serves, or (``has_ended``) it is over.

    ``began``: when its start did. ``served_secs``: for how long it has served; None: it never did. ``failed_because``:
    what is told of its failure; None: it ended as it was meant to, or by somebody's wish.
    """

    run_id: str
    pool: PoolKey
    generation: Generation
    began: float
    has_ended: bool = False
    served_secs: float | None = None
    failed_because: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """
    What went wrong with one generation of a pool.

    ``failed_starts`` are those in a row; ``crashes`` tells when there were any, within the window. ``pauses``: how many
    in a row; 0: it is not quarantined. ``paused_at``: when the last one began. ``serving_since``: its runs that serve.
    """

    last_at: float
    why: str
    run_id: str
    failed_starts: int = 0
    crashes: tuple[float, ...] = ()
    pauses: int = 0
    paused_at: float = 0.0
    serving_since: Mapping[str, float] = field(default_factory=dict)

    @property
    def pause_secs(self) -> float:
        """How long the present pause is, e.g. 40 s for the third in a row."""
        return min(LONGEST_PAUSE_SECS, FIRST_PAUSE_SECS * 2 ** min(self.pauses - 1, 10)) if self.pauses else 0.0

    def left_secs(self, now: float) -> float:
        """How much of the pause is left; 0: one attempt may be made."""
        return min(self.pause_secs, max(0.0, self.paused_at + self.pause_secs - now))

    def in_words(self) -> str:
        """What has happened, and the last reason."""
        if self.crashes:
            what = (
                f"{_times(len(self.crashes))} within 5 minutes a run of this Actor failed soon after it began to serve"
            )
        else:
            what = f"{_times(self.failed_starts)} in a row a run of this Actor did not begin to serve"
        return f"{what}. The last one: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """
    What a pool may do now. ``may_start``: None where quarantine sets no limit. ``start_unasked``: also runs that nobody
    waits for. ``quarantined``: why nothing is started, and ``left_secs`` for how long.
    """

    may_start: int | None = None
    start_unasked: bool = True
    quarantined: Trouble | None = None
    left_secs: float = 0.0


FREE = Standing()


class Quarantine:
    """The troubles of all pools; only those that have any cost something."""

    def __init__(self) -> None:
        self._troubles: dict[tuple[PoolKey, Generation], Trouble] = {}

    def hear(self, news: RunNews, now: float) -> Trouble | None:
        """Take in what became of a run; the trouble with its pool where a pause has begun with it."""
        key = news.pool, news.generation
        before = self._troubles.get(key)
        if before is not None and _is_over(before, now):
            before = None
        after = _after(before, news, now)
        if after is None:
            self._troubles.pop(key, None)
        else:
            self._troubles[key] = after
        return after if after is not None and after.pauses > (before.pauses if before else 0) else None

    def standing(self, pool: PoolKey, generation: Generation, now: float, *, starting: int = 0) -> Standing:
        """
        What *pool* may do, of which *starting* runs have been started and don't serve yet.

        After one or two failed starts, runs that nobody waits for are started 2 s and 4 s after the last one only.
        """
        trouble = self._troubles.get((pool, generation))
        if trouble is None:
            return FREE
        if _is_over(trouble, now):
            del self._troubles[pool, generation]
            return FREE
        if not trouble.pauses:
            pause_secs = _UNASKED_PAUSE_SECS**trouble.failed_starts if trouble.failed_starts else 0.0
            return Standing(start_unasked=now - trouble.last_at >= pause_secs)
        left_secs = trouble.left_secs(now)
        if left_secs > 0:
            return Standing(may_start=0, start_unasked=False, quarantined=trouble, left_secs=left_secs)
        return Standing(may_start=max(0, 1 - starting))

    def clear(self, target_id: str) -> list[PoolKey]:
        """Somebody wants an Actor's or a task's pools to be tried again at once; those that were in trouble."""
        keys = [key for key in self._troubles if key[0].target_id == target_id]
        for key in keys:
            del self._troubles[key]
        return list(dict.fromkeys(pool for pool, _ in keys))

    def clear_all(self) -> list[PoolKey]:
        """Nothing is known any more, as at the begin of a new lead; the pools that were in trouble."""
        pools = list(dict.fromkeys(pool for pool, _ in self._troubles))
        self._troubles.clear()
        return pools

    def forget_old(self, now: float) -> None:
        """Drop what is over, so that pools that nobody asks for any more are not kept for ever."""
        for key in [key for key, trouble in self._troubles.items() if _is_over(trouble, now)]:
            del self._troubles[key]

    def quarantined(self) -> Iterator[tuple[PoolKey, Generation, Trouble]]:
        """Every pool that is, also those of which one attempt may be made now."""
        return ((*key, trouble) for key, trouble in self._troubles.items() if trouble.pauses)


def _after(trouble: Trouble | None, news: RunNews, now: float) -> Trouble | None:
    """None: there is no trouble (any more)."""
    if not news.has_ended:
        return _after_begin(trouble, news, now)
    serving = _without(trouble.serving_since, news.run_id) if trouble else {}
    if news.served_secs is not None and news.served_secs >= SOON_SECS:
        return None
    if news.failed_because is None:
        return replace(trouble, serving_since=serving) if trouble else None
    if trouble is None:
        trouble = Trouble(last_at=now, why="", run_id="")
    trouble = replace(trouble, why=news.failed_because, run_id=news.run_id, last_at=now, serving_since=serving)
    if trouble.pauses and news.began < trouble.paused_at:
        return trouble  # it was started before the pause, and says nothing about the attempt after it
    if news.served_secs is not None and trouble.crashes and news.began < trouble.crashes[-1]:
        return trouble  # they died together, which is one crash and no loop: by a restart of their engine, say
    if news.served_secs is None:
        trouble = replace(trouble, failed_starts=trouble.failed_starts + 1)
        is_enough = trouble.failed_starts >= FAILED_STARTS
    else:
        trouble = replace(trouble, crashes=(*_recent(trouble.crashes, now), now), failed_starts=0)
        is_enough = len(trouble.crashes) >= CRASHES
    if trouble.pauses or is_enough:
        trouble = replace(trouble, pauses=trouble.pauses + 1, paused_at=now)
    return trouble


def _after_begin(trouble: Trouble | None, news: RunNews, now: float) -> Trouble | None:
    if trouble is None:
        return None
    crashes = trouble.crashes if trouble.pauses else _recent(trouble.crashes, now)
    if not crashes:
        return None
    return replace(trouble, crashes=crashes, failed_starts=0, serving_since={**trouble.serving_since, news.run_id: now})


def _is_over(trouble: Trouble, now: float) -> bool:
    if any(now - since >= SOON_SECS for since in trouble.serving_since.values()):
        return True
    if not trouble.pauses and not trouble.failed_starts and not _recent(trouble.crashes, now):
        return True
    return now - trouble.last_at >= _FORGET_SECS


def _recent(crashes: Iterable[float], now: float) -> tuple[float, ...]:
    return tuple(at for at in crashes if now - at < CRASH_WINDOW_SECS)


def _without(serving_since: Mapping[str, float], run_id: str) -> Mapping[str, float]:
    return {name: since for name, since in serving_since.items() if name != run_id}


def _times(count: int) -> str:
    return "Once" if count == 1 else f"{count} times"


def whole_secs(secs: float) -> int:
    """What stands in ``Retry-After``: never earlier than the pause is over, and at least a second."""
    return max(1, math.ceil(secs))
