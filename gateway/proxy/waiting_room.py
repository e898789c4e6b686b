"""
No I/O: who waits for a pool and who is next.

First come, first served within a caller; round-robin over callers, so that one caller's thousand requests don't make
another's single one wait behind all of them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from gateway.core.errors import WaitingRoomFull


@dataclass(slots=True, eq=False)
class Ticket:
    """One held request's place; *caller* is its user's id, or empty at a public host."""

    caller: str
    number: int = 0
    has_left: bool = field(default=False)


class WaitingRoom:
    """The bounded queue of one pool; joining, leaving and calling cost O(1), and who has left takes no memory."""

    def __init__(self, size: int) -> None:
        self._size = size
        # Ordered dicts and not deques: who leaves from the middle must not be kept until his turn would have come.
        self._queues: OrderedDict[str, OrderedDict[int, Ticket]] = OrderedDict()
        self.waiting = 0
        """How many wait."""
        self._last_number = 0

    def __len__(self) -> int:
        return self.waiting

    def join(self, ticket: Ticket) -> None:
        """Take a place behind the caller's earlier ones. Raises WaitingRoomFull."""
        if self.waiting >= self._size:
            raise WaitingRoomFull(self.waiting)
        self._last_number += 1
        ticket.number = self._last_number
        self._queues.setdefault(ticket.caller, OrderedDict())[ticket.number] = ticket
        self.waiting += 1

    def leave(self, ticket: Ticket) -> None:
        """Give up the place, e.g. because the caller went away; a ticket without one (any more) is fine."""
        if ticket.has_left or not ticket.number:
            return
        ticket.has_left = True
        queue = self._queues[ticket.caller]
        del queue[ticket.number]
        if not queue:
            del self._queues[ticket.caller]
        self.waiting -= 1

    def next_ticket(self) -> Ticket | None:
        """Who goes in next; its caller's other tickets then wait until every other caller had a turn."""
        if not self._queues:
            return None
        caller, queue = next(iter(self._queues.items()))
        ticket = next(iter(queue.values()))
        self._queues.move_to_end(caller)
        self.leave(ticket)
        return ticket

    def oldest(self, count: int) -> list[Ticket]:
        """Take out the *count* tickets that have waited longest, over all callers."""
        chosen = sorted(self._present(), key=lambda ticket: ticket.number)[:count]
        for ticket in chosen:
            self.leave(ticket)
        return chosen

    def _present(self) -> Iterator[Ticket]:
        return (ticket for queue in self._queues.values() for ticket in queue.values())
