"""
No I/O: how many of those who come must wait too long, by the queue of Erlang (M/M/c), and how many runs are worth it.

Requests come at random, so even slots that suffice on average are all taken at times. How often, and for how long, is
known since 1917; what is left to decide is what one late request less is worth.
"""

from __future__ import annotations

import math

_MOST_SLOTS = 2_000


def late_ratio(slots: int, rate: float, service_secs: float, late_after_secs: float) -> float:
    """
    The share of requests that wait for longer than *late_after_secs*; 1 where the slots do not suffice on average.

    E.g. 5 requests a second of 0.5 s each find 4 slots: 1.2 % of them wait for more than a second; with 8, none.
    """
    offered = rate * service_secs
    if offered >= slots:
        return 1.0
    if slots > _MOST_SLOTS:
        # So many even out: twice the deviation is as good as none.
        return 1.0 if slots < offered + 2 * math.sqrt(offered) else 0.0
    blocked = 1.0
    for number in range(1, slots + 1):
        blocked = offered * blocked / (number + offered * blocked)
    waits = blocked / (1 - offered / slots * (1 - blocked))
    return waits * math.exp(-(slots - offered) * late_after_secs / service_secs)


def worthwhile_runs(
    rate: float, service_secs: float, slots_per_run: int, *, late_after_secs: float, late_price_secs: float
) -> int:
    """
    The fewest runs with which all that is still late is not worth one run more: a run costs a run-second a second, a
    late request *late_price_secs*. Never fewer where more requests come or take longer.

    E.g. 5 a second of 0.5 s each, 4 at once in a run, at a price of 20: with one run 0.06 are late each second, which
    is worth more than a second run; with two, none.
    """
    runs = max(1, math.floor(rate * service_secs / slots_per_run))
    while True:
        late = late_ratio(runs * slots_per_run, rate, service_secs, late_after_secs)
        # As long as the slots don't suffice on average, no price is too high.
        if late < 1.0 and rate * late * late_price_secs <= 1.0:
            return runs
        runs += 1
