"""
No I/O: which run takes the request, or none.

Source: apify-platform.md §1.6 (fewest requests in flight below the limit).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar


class Loaded(Protocol):
    """Anything that carries requests; the balancer reads nothing else of a run."""

    @property
    def taken(self) -> int:
        """Slots in use."""
        ...

    @property
    def quota(self) -> int:
        """How many may be in use by the callers of this gateway; several gateways share a run's limit."""
        ...

    @property
    def is_overloaded(self) -> bool:
        """Whether new requests better go to another one."""
        ...


R = TypeVar("R", bound=Loaded)


def in_turn(runs: Sequence[R]) -> list[list[R]]:
    """*runs* in groups of which each is asked only when none before it has room: the overloaded ones last."""
    at_ease = [run for run in runs if not run.is_overloaded]
    overloaded = [run for run in runs if run.is_overloaded]
    return [group for group in (at_ease, overloaded) if group]


def pick_run(runs: Sequence[Loaded], *, desired: int, limit: int, chance: float) -> int | None:
    """
    The index of the run with the fewest requests among those below *limit* and their quota; None where there is none.

    Ties go at random (*chance* is uniform in [0, 1)), so that several gateways don't all choose alike. But where the
    requests, this one included, would fit into one run fewer at *desired* each, the first of them is taken: the last
    ones then fall idle and can be wound down, e.g. two runs and one caller at a time leave the second unused.
    """
    if len(runs) == 1:  # the usual case, and on the way of each request
        return 0 if runs[0].taken < limit and runs[0].taken < runs[0].quota else None
    fewest = min((run.taken for run in runs if run.taken < run.quota), default=limit)
    if fewest >= limit:
        return None
    tied = [index for index, run in enumerate(runs) if run.taken == fewest and run.taken < run.quota]
    if sum(run.taken for run in runs) + 1 <= desired * (len(runs) - 1):
        return tied[0]
    return tied[int(chance * len(tied))]
