"""
No I/O: the names of all keys and channels in Redis. ``deploy/REDIS.md`` is the same list for people.

Each key begins with the namespace in braces, so that a cluster would keep them together, and has an expiry. Channels
have the number of the database in their names, since Redis knows no databases there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """
    One key, or a family of keys, as the page lists it; ``name`` without the namespace, variable parts in ``<>``.
    """

    name: str
    type: str
    holds: str
    written_by: str
    expiry: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """Full names in one namespace of one database."""

    namespace: str
    database: int = 0

    def key(self, *parts: str) -> str:
        """The key of that name, e.g. ``{greenroom}:presence:gateway``."""
        return f"{{{self.namespace}}}:{':'.join(parts)}"

    def channel(self, *parts: str) -> str:
        """The channel of that name, e.g. ``{greenroom}:0:changes``."""
        return f"{{{self.namespace}}}:{self.database}:{':'.join(parts)}"


ROUTES_SECS = 600.0
"""Routes outlive their leader by so long: gateways that start meanwhile still find them."""
FENCE_SECS = 24 * 3600.0
SLOTS_SECS = 3600.0
"""Gateways name all that they hold more often."""
SOCKETS_SECS = 30.0
POKE_SECS = 60.0

PAGE = (
    Entry(
        name="routes",
        type="hash",
        holds="Each live run by its id: where it is and whether it takes requests",
        written_by="the leading autoscaler",
        expiry="10 min after the leader's last sign of life",
    ),
    Entry(
        name="routes:head",
        type="hash",
        holds="`version` of the last change of routes; `whole` once a leader has published all that there are",
        written_by="the leading autoscaler",
        expiry="10 min after the leader's last sign of life",
    ),
    Entry(
        name="lease:<name>",
        type="string",
        holds="Who has the lease",
        written_by="who takes, renews or resigns it",
        expiry="with the lease",
    ),
    Entry(
        name="fence:<name>",
        type="string",
        holds="The newest fencing token that was given with the lease; writes with an older one are refused",
        written_by="who takes or renews the lease",
        expiry="24 h after the last renewal",
    ),
    Entry(
        name="demand",
        type="hash",
        holds="The last demand report of each gateway",
        written_by="gateways",
        expiry="10 reporting intervals after the last report of any",
    ),
    Entry(
        name="demand:until",
        type="sorted set",
        holds="Until when each of these reports counts",
        written_by="gateways",
        expiry="with `demand`",
    ),
    Entry(
        name="pokes",
        type="list",
        holds="One element while somebody wants the leader to look at once",
        written_by="gateways and autoscalers",
        expiry="1 min",
    ),
    Entry(
        name="loads",
        type="hash",
        holds="The last measured load of each run",
        written_by="the leading autoscaler",
        expiry="5 s after the last report",
    ),
    Entry(
        name="loads:until",
        type="sorted set",
        holds="Until when each of these loads counts",
        written_by="the leading autoscaler",
        expiry="with `loads`",
    ),
    Entry(
        name="troubles",
        type="string",
        holds="The pools in quarantine",
        written_by="the leading autoscaler",
        expiry="10 ticks after the last report",
    ),
    Entry(
        name="slots",
        type="hash",
        holds="The ledger of slots: of which run of which server it is, whether it is open, and its counters",
        written_by="gateways",
        expiry="1 h after the last call of any gateway",
    ),
    Entry(
        name="slots:borrowers",
        type="hash",
        holds="The gateway processes that borrow slots, with their last call and until when their slots count",
        written_by="gateways",
        expiry="1 h after the last call of any gateway",
    ),
    Entry(
        name="slots:awaited",
        type="set",
        holds="After a loss: the gateway processes that have to tell what they hold before slots are lent again",
        written_by="gateways",
        expiry="1 h after the last call of any gateway",
    ),
    Entry(
        name="slots:withdrawn",
        type="set",
        holds="The gateway processes that have ended, for those who have not heard of it",
        written_by="gateways",
        expiry="1 h after the last end of any",
    ),
    Entry(
        name="slots:run:<run id>",
        type="hash",
        holds="Who has how many slots of one run, and who waits for how many",
        written_by="gateways",
        expiry="1 h after the last call that named the run; all are named every 10 min",
    ),
    Entry(
        name="sockets",
        type="sorted set",
        holds="The runs with events sockets, and until when the last sign of life counts",
        written_by="gateways",
        expiry="30 s after the last sign of life",
    ),
    Entry(
        name="sockets:<run id>",
        type="sorted set",
        holds="The events sockets of one run, and until when the last sign of life counts",
        written_by="the gateways where they are connected",
        expiry="30 s after the last sign of life",
    ),
    Entry(
        name="presence:<kind>",
        type="hash",
        holds="The processes of one kind that are there, with facts such as an address",
        written_by="these processes",
        expiry="with the last announcement",
    ),
    Entry(
        name="presence:<kind>:until",
        type="sorted set",
        holds="Until when each of these announcements counts",
        written_by="these processes",
        expiry="with `presence:<kind>`",
    ),
)


def entry_of(name: str) -> Entry | None:
    """The entry that the key *name* (without its namespace) belongs to, the most exact one; None: it is not listed."""
    found = [entry for entry in PAGE if re.fullmatch(re.sub(r"<[^>]+>", "[^:]+", entry.name), name)]
    return max(found, key=lambda entry: entry.name.count(":") - entry.name.count("<"), default=None)
