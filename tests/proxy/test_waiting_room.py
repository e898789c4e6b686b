"""Who waits and who is next: fair over callers, first come first served within one, bounded, and cheap."""

from __future__ import annotations

import gc
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.core.errors import WaitingRoomFull
from gateway.proxy.waiting_room import Ticket, WaitingRoom

CALLERS = st.sampled_from(["ann", "bob", "cyd", ""])


def joined(room: WaitingRoom, callers: str) -> list[Ticket]:
    tickets = [Ticket(caller) for caller in callers]
    for ticket in tickets:
        room.join(ticket)
    return tickets


def order(room: WaitingRoom) -> str:
    called = ""
    while (ticket := room.next_ticket()) is not None:
        called += ticket.caller
    return called


@pytest.mark.parametrize(
    ("callers", "expected"),
    [
        pytest.param("", "", id="nobody"),
        pytest.param("aaa", "aaa", id="one caller: as they came"),
        pytest.param("aaab", "abaa", id="a single one does not wait behind all of another's"),
        pytest.param("aabbcc", "abcabc", id="round-robin"),
        pytest.param("abcabc", "abcabc", id="the first comer is first"),
        pytest.param("bbaac", "bacba", id="who has no more drops out of the round"),
    ],
)
def test_the_order_of_calls(callers: str, expected: str) -> None:
    """Round-robin over callers in the order in which they came."""
    room = WaitingRoom(10)
    joined(room, callers)
    assert order(room) == expected
    assert len(room) == 0


def test_within_a_caller_first_come_first_served() -> None:
    """Also when one of them leaves in between."""
    room = WaitingRoom(10)
    first, second, third = joined(room, "aaa")
    room.leave(second)
    assert [room.next_ticket(), room.next_ticket(), room.next_ticket()] == [first, third, None]


def test_the_bound_is_exact() -> None:
    """The last place is given, the next is refused and changes nothing; who leaves makes room."""
    room = WaitingRoom(2)
    first, _ = joined(room, "ab")
    refused = Ticket("c")
    with pytest.raises(WaitingRoomFull) as full:
        room.join(refused)
    assert full.value.held == 2
    room.leave(refused)
    assert len(room) == 2
    room.leave(first)
    room.join(Ticket("c"))
    assert order(room) == "bc"


def test_leaving_twice_counts_once() -> None:
    """As does leaving after one was called."""
    room = WaitingRoom(10)
    first, _, third = joined(room, "abc")
    room.leave(first)
    room.leave(first)
    assert len(room) == 2
    called = room.next_ticket()
    assert called is not None
    room.leave(called)
    assert len(room) == 1
    assert room.next_ticket() is third


def test_who_comes_again_stands_behind() -> None:
    """A caller whose last ticket left has no place in the round any more."""
    room = WaitingRoom(10)
    (first,) = joined(room, "a")
    joined(room, "bb")
    room.leave(first)
    joined(room, "a")
    assert order(room) == "bab"


def test_the_oldest_over_all_callers() -> None:
    """By time of joining, not by turn; they are out of the room then."""
    room = WaitingRoom(10)
    tickets = joined(room, "aabac")
    assert room.oldest(3) == tickets[:3]
    assert order(room) == "ac"
    assert room.oldest(5) == []


class Tracked(Ticket):
    """A ticket whose end can be seen."""


def test_who_has_left_is_not_kept() -> None:
    """While somebody waits in front for hours, those who come and go behind take no memory, whoever they are."""
    room = WaitingRoom(10)
    joined(room, "a")
    seen = []
    for number in range(100):
        for caller in ("a", f"other {number}"):
            ticket = Tracked(caller)
            seen.append(weakref.ref(ticket))
            room.join(ticket)
            room.leave(ticket)
    del ticket
    gc.collect()
    assert [ref for ref in seen if ref() is not None] == []
    assert order(room) == "a"


@given(st.lists(CALLERS, min_size=1, max_size=40))
def test_nobody_is_overtaken_twice(callers: list[str]) -> None:
    """Between two calls of one caller, everybody else who waits is called once."""
    room = WaitingRoom(100)
    waiting: dict[str, int] = {}
    for caller in callers:
        room.join(Ticket(caller))
        waiting[caller] = waiting.get(caller, 0) + 1
    called_since: dict[str, set[str]] = {}
    while (ticket := room.next_ticket()) is not None:
        waiting[ticket.caller] -= 1
        others = {caller for caller, count in waiting.items() if count and caller != ticket.caller}
        if ticket.caller in called_since:
            assert others <= called_since[ticket.caller]
        for since in called_since.values():
            since.add(ticket.caller)
        called_since[ticket.caller] = set()


class AgainstASimpleModel(RuleBasedStateMachine):
    """The room does what a slow and obvious list of lists does."""

    SIZE = 6

    def __init__(self) -> None:
        super().__init__()
        self.room = WaitingRoom(self.SIZE)
        self.queues: dict[str, list[Ticket]] = {}
        self.joined: list[Ticket] = []

    @rule(caller=CALLERS)
    def join(self, caller: str) -> None:
        ticket = Ticket(caller)
        if len(self.joined) == self.SIZE:
            with pytest.raises(WaitingRoomFull):
                self.room.join(ticket)
            return
        self.room.join(ticket)
        self.joined.append(ticket)
        self.queues.setdefault(caller, []).append(ticket)

    def forget(self, ticket: Ticket) -> None:
        self.joined.remove(ticket)
        self.queues[ticket.caller].remove(ticket)
        if not self.queues[ticket.caller]:
            del self.queues[ticket.caller]

    @precondition(lambda self: self.joined)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.joined))
        self.room.leave(ticket)
        self.forget(ticket)

    @rule()
    def call(self) -> None:
        expected = next(iter(self.queues.values()))[0] if self.queues else None
        assert self.room.next_ticket() is expected
        if expected is not None:
            rest = self.queues.pop(expected.caller)
            self.queues[expected.caller] = rest
            self.forget(expected)

    @rule(count=st.integers(0, 8))
    def oldest(self, count: int) -> None:
        expected = self.joined[:count]
        assert self.room.oldest(count) == expected
        for ticket in list(expected):
            self.forget(ticket)

    @invariant()
    def counts(self) -> None:
        assert len(self.room) == len(self.joined)


TestAgainstASimpleModel = AgainstASimpleModel.TestCase
