"""
No I/O: what one who knows the future would have paid, to show what is left.

It starts each run three seconds before it is needed, lets requests wait for as long as they may without being late,
ends a run the moment that the others suffice, and moves requests between runs as it likes. That is a good plan, not the
best one there is; how far policies are from it says how much of their cost is not knowing.
"""

from __future__ import annotations

import heapq
from collections import deque

from loadtests.simulation.engine import LATE_SECS, Workload


def oracle_run_secs(load: Workload) -> float:
    """Run-seconds with no late request at all."""
    start = load.start_secs[0]
    return sum(_paid(spans, start) for spans in _levels(load))


def _levels(load: Workload) -> list[list[tuple[float, float]]]:
    """For the n-th run, when it serves."""
    waiting: deque[int] = deque()
    finishes: list[float] = []
    opened: list[float] = []
    spans: list[list[tuple[float, float]]] = []
    events = [(at, 0, number) for number, at in enumerate(load.arrivals)]
    events += [(at + LATE_SECS, 1, number) for number, at in enumerate(load.arrivals)]
    heapq.heapify(events)

    def admit(now: float) -> None:
        while waiting and len(finishes) < load.limit * len(opened):
            ends = now + load.services[waiting.popleft()]
            heapq.heappush(finishes, ends)
            heapq.heappush(events, (ends, 2, -1))

    while events:
        now, kind, number = heapq.heappop(events)
        if kind == 0:
            waiting.append(number)
        elif kind == 1 and waiting and waiting[0] <= number:
            opened.append(now)
            if len(spans) < len(opened):
                spans.append([])
        elif kind == 2:
            heapq.heappop(finishes)
        admit(now)
        while opened and not waiting and len(finishes) <= load.limit * (len(opened) - 1):
            spans[len(opened) - 1].append((opened.pop(), now))
    return spans


def _paid(spans: list[tuple[float, float]], start_secs: float) -> float:
    """Each span and the start before it; between two that are closer than a start takes, the run stays."""
    total, last = 0.0, float("-inf")
    for begins, ends in sorted(spans):
        total += ends - max(last, begins - start_secs)
        last = ends
    return total
