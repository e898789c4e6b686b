"""The promises of the SlotLeases port, held against every adapter, and the script in Redis against the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis_server import new_namespace

from gateway.core.lifecycle import Readiness
from gateway.core.model import Address
from gateway.core.slot_leases import (
    LEASE_SECS,
    NEED_SECS,
    Age,
    Heard,
    SlotAnswer,
    SlotClaim,
    SlotLease,
    SlotLedger,
    SlotMessage,
    SlotRequest,
    SlotWord,
)
from gateway.state.ports import RunRoute
from gateway.state.redis.address import parse_address
from gateway.state.redis.client import open_client
from gateway.state.redis.ears import Ears
from gateway.state.redis.slots import Moment, RedisSlots
from gateway.state.signals_opening import open_signals
from gateway.state.slot_ports import SlotLeases
from gateway.state.slots_memory import MemorySlots


@dataclass
class When:
    """A clock that moves when told, and the server that it is of."""

    now: float = 1_000_000.0
    server: str = "first"
    age_secs: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now

    def moment(self) -> Moment:
        return Moment(now_secs=self.now, server=self.server, age_secs=self.age_secs)


@asynccontextmanager
async def on_redis(url: str, when: When | None, namespace: str | None = None) -> AsyncIterator[RedisSlots]:
    """In a namespace of its own; without *when*, time and server are Redis' own."""
    async with open_client(parse_address(url), namespace=namespace or new_namespace()) as client:
        ears = Ears(client, on_hearing=_nothing)
        works = [client.start_task(ears.run()), client.start_task(ears.beat())]
        try:
            yield RedisSlots(client, ears, moment=when.moment if when is not None else None)
        finally:
            for work in works:
                work.cancel()
            ears.close()


async def _nothing() -> None:
    pass


@pytest.fixture
def when() -> When:
    return When()


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.slow)])
async def slots(request: pytest.FixtureRequest, when: When) -> AsyncIterator[SlotLeases]:
    """An open ledger in which nothing is held."""
    if request.param == "memory":
        yield MemorySlots(when)
        return
    async with on_redis(request.getfixturevalue("redis_server").url(), when) as slots:
        yield slots


class Borrower:
    """Speaks as a gateway does: one call after the other, each with what the last answer said."""

    def __init__(self, slots: SlotLeases, name: str) -> None:
        self.slots = slots
        self.name = name
        self.last = SlotRequest(borrower=name, number=0)
        self.answer = SlotAnswer(heard=Heard.UNKNOWN)

    async def say(self, *, is_full: bool | None = None, **claims: SlotClaim) -> dict[str, SlotLease]:
        """The leases in the answer, which must have been heard."""
        self.last = SlotRequest(
            borrower=self.name,
            number=self.last.number + 1,
            epoch=self.answer.epoch,
            seen=self.answer.joins,
            is_full=is_full if is_full is not None else not self.answer.epoch,
            complete_in_secs=self.answer.opens_in_secs if self.answer.epoch else None,
            knows=self.answer.borrowers,
            claims=claims,
        )
        self.answer = await self.slots.settle(self.last)
        assert self.answer.heard is Heard.DONE
        return dict(self.answer.leases)

    async def has(self, **claim: Any) -> SlotLease:
        """What it has of the run *r*, of which there are four slots, after such a claim."""
        return (await self.say(r=SlotClaim(**{"limit": 4, **claim})))["r"]


async def borrowers(slots: SlotLeases, *names: str) -> list[Borrower]:
    """All of whom know of each other."""
    made = [Borrower(slots, name) for name in names]
    for _ in range(2):
        for one in made:
            await one.say()
    return made


async def test_all_that_is_lent_stays_within_the_limit(slots: SlotLeases) -> None:
    """Who comes first gets what he likes; the next ones get the rest, and hear what others have."""
    ann, bob = await borrowers(slots, "ann", "bob")
    assert await ann.has(likes=3) == SlotLease(slots=3)
    assert await bob.has(likes=3) == SlotLease(slots=1, others=3)
    assert await bob.has(keeps=1, needs=3) == SlotLease(slots=1, others=3)
    assert await ann.has(keeps=2) == SlotLease(slots=2, others=2, unmet=1)


async def test_what_is_given_back_goes_to_whom_it_was_wanted_by(slots: SlotLeases) -> None:
    """At once, and told by a message: who needs it neither asks again nor waits. Who has it hears that it is wanted."""
    ann, bob = await borrowers(slots, "ann", "bob")
    await ann.has(likes=4)
    async with slots.watch("ann") as to_ann, slots.watch("bob") as to_bob:
        assert await bob.has(needs=2) == SlotLease(slots=0, others=4)
        assert await anext(to_ann) == SlotMessage(word=SlotWord.WANTED, run_id="r", count=2)
        assert await ann.has(keeps=1, likes=4) == SlotLease(slots=2, others=2)
        assert await anext(to_bob) == SlotMessage(word=SlotWord.GRANTED, run_id="r", count=2, number=bob.last.number)
    assert await bob.has(keeps=2) == SlotLease(slots=2, others=2)


async def test_who_has_needed_longest_gets_it_first(slots: SlotLeases) -> None:
    """Not who asks again, nor who gives back and needs it himself; and each of them in turn."""
    ann, bob, cyd = await borrowers(slots, "ann", "bob", "cyd")
    await ann.has(limit=1, needs=1)
    await bob.has(limit=1, needs=1)
    await cyd.has(limit=1, needs=1)
    assert await ann.has(limit=1, needs=1) == SlotLease(slots=0, others=1, unmet=1)
    assert await cyd.has(limit=1, needs=1) == SlotLease(slots=0, others=1, unmet=1)
    assert await bob.has(limit=1, keeps=1) == SlotLease(slots=1, others=0, unmet=2)
    assert await bob.has(limit=1, needs=1) == SlotLease(slots=0, others=1, unmet=1)
    assert (await cyd.has(limit=1, keeps=1)).slots == 1


async def test_a_need_is_forgotten_soon(slots: SlotLeases, when: When) -> None:
    """Whoever waits says so again; of one who does not, nobody is kept from slots."""
    ann, bob = await borrowers(slots, "ann", "bob")
    await ann.has(likes=4)
    await bob.has(needs=1)
    when.now += NEED_SECS
    assert await ann.has(likes=4) == SlotLease(slots=4)


async def test_who_is_silent_loses_all_after_its_time(slots: SlotLeases, when: When) -> None:
    """Not before, and it is asked to tell everything anew when it speaks again; what it keeps then counts."""
    ann, bob = await borrowers(slots, "ann", "bob")
    await ann.has(likes=4)
    when.now += LEASE_SECS - 1
    assert await bob.has(needs=4) == SlotLease(slots=0, others=4)
    when.now += 1
    assert await bob.has(needs=3) == SlotLease(slots=3)
    lost = replace(ann.last, number=ann.last.number + 1, is_full=False)
    assert (await slots.settle(lost)).heard is Heard.UNKNOWN
    ann.last = lost
    assert (await ann.say(is_full=True, r=SlotClaim(limit=4, keeps=2)))["r"] == SlotLease(slots=2, others=3)
    assert await bob.has(keeps=3, needs=4) == SlotLease(slots=3, others=2)


async def test_speaking_renews_all(slots: SlotLeases, when: When) -> None:
    """Also calls that name no run."""
    ann, bob = await borrowers(slots, "ann", "bob")
    await ann.has(likes=4)
    for _ in range(3):
        when.now += LEASE_SECS - 1
        await ann.say()
        await bob.say(is_full=True)
    assert (await bob.has(needs=1)).slots == 0


async def test_of_one_that_is_proven_dead_all_is_free_at_once(slots: SlotLeases) -> None:
    """Nobody waits for its time to be over; one that nobody knows is no error."""
    ann, bob = await borrowers(slots, "ann", "bob")
    await ann.has(likes=4)
    await slots.withdraw("ann")
    await slots.withdraw("ann")
    assert await bob.has(needs=4) == SlotLease(slots=4)
    assert bob.answer.borrowers == ("bob",)


async def test_who_may_have_something_in_flight(slots: SlotLeases, when: When) -> None:
    """Whoever has slots, until he gives them back, is withdrawn, or was not heard from for a whole lease."""
    ann, bob = await borrowers(slots, "ann", "bob")
    assert await slots.holders("r") == frozenset()
    await ann.has(likes=1)
    await bob.has(likes=1)
    assert await slots.holders("r") == {"ann", "bob"}
    assert await slots.holders("another") == frozenset()
    await bob.has(keeps=0)
    assert await slots.holders("r") == {"ann"}
    await bob.has(likes=1)
    await slots.withdraw("bob")
    assert await slots.holders("r") == {"ann"}
    when.now += LEASE_SECS
    assert await slots.holders("r") == frozenset()


async def test_nobody_can_tell_who_has_what_after_a_loss(redis_server: Any, when: When) -> None:
    """Until all have spoken; of a run that began after it, at once. Where nobody ever borrowed, nobody has anything."""
    async with on_redis(redis_server.url(), when) as before:
        assert await before.holders("r") == frozenset()
        ann, bob = await borrowers(before, "ann", "bob")
        await bob.has(likes=2)
        when.server, when.age_secs = "second", 0.0
        assert await before.holders("r") is None  # another one has taken over, with all that was written
    async with on_redis(redis_server.url(), when) as after:
        assert await after.holders("r") is None
        with redis_server.client() as client:
            client.hset(after.run_key("new"), "born", when.server)
        ann.slots = bob.slots = after
        await ann.say(is_full=True)
        assert await after.holders("r") is None
        assert await after.holders("new") == frozenset()
        await bob.say(is_full=True, r=SlotClaim(limit=4, keeps=2))
        assert await after.holders("r") == {"bob"}


async def test_nobody_waits_for_one_that_has_been_withdrawn(redis_server: Any, when: When) -> None:
    """Though others, who have not heard of that, name it to a ledger that was lost."""
    async with on_redis(redis_server.url(), when) as before:
        ann, _ = await borrowers(before, "ann", "bob")
    when.server, when.age_secs = "second", 0.0
    async with on_redis(redis_server.url(), when) as after:
        ann.slots = after
        await after.withdraw("bob")
        await ann.say(is_full=True)
        assert ann.answer.is_open


async def test_a_call_that_comes_too_late_does_nothing(slots: SlotLeases) -> None:
    """Its sender has given it up and has said something else since."""
    ann, bob = await borrowers(slots, "ann", "bob")
    late = replace(ann.last, number=ann.last.number + 1, claims={"r": SlotClaim(limit=4, likes=4)})
    ann.last = late
    await ann.has(keeps=0)
    assert (await slots.settle(late)).heard is Heard.STALE
    assert await bob.has(needs=4) == SlotLease(slots=4)


async def test_a_full_call_gives_back_what_it_does_not_name(slots: SlotLeases) -> None:
    """So an answer that was lost costs nothing for long."""
    ann, bob = await borrowers(slots, "ann", "bob")
    await ann.say(r=SlotClaim(limit=4, likes=4), s=SlotClaim(limit=1, likes=1))
    await ann.say(is_full=True, s=SlotClaim(limit=1, keeps=1))
    answer = await bob.say(r=SlotClaim(limit=4, needs=4), s=SlotClaim(limit=1, needs=1))
    assert answer == {"r": SlotLease(slots=4), "s": SlotLease(slots=0, others=1)}


async def test_a_newcomer_gets_nothing_before_it_is_known(slots: SlotLeases) -> None:
    """
    By all who were there before, who are told that it came; then its slots survive a ledger that is lost, since they
    name it. It knows them from its first answer.
    """
    (ann,) = await borrowers(slots, "ann")
    bob = Borrower(slots, "bob")
    async with slots.watch("ann") as to_ann:
        assert await bob.has(likes=4) == SlotLease(slots=0)
        assert await anext(to_ann) == SlotMessage(word=SlotWord.JOINED)
    await ann.say()
    assert ann.answer.borrowers == ("ann", "bob")
    assert await bob.has(likes=4) == SlotLease(slots=0)
    await ann.say()
    assert await bob.has(likes=4) == SlotLease(slots=4)


@pytest.fixture
async def on_real_redis(redis_server: Any, when: When) -> AsyncIterator[RedisSlots]:
    async with on_redis(redis_server.url(), when) as slots:
        yield slots


async def test_after_a_takeover_all_are_heard_before_anything_is_lent(on_real_redis: RedisSlots, when: When) -> None:
    """The server's copy may lack the last moment: ann has more than it knows, until she says so."""
    ann, bob = await borrowers(on_real_redis, "ann", "bob")
    assert (await ann.has(likes=1)).slots == 1
    when.server = "second"
    bob.last = replace(bob.last, number=bob.last.number + 1, is_full=False)
    assert (await on_real_redis.settle(bob.last)).heard is Heard.UNKNOWN
    assert (await bob.say(is_full=True, r=SlotClaim(limit=4, needs=4)))["r"].slots == 0
    assert not bob.answer.is_open
    await ann.say(is_full=True, r=SlotClaim(limit=4, keeps=3))
    assert ann.answer.is_open
    assert await bob.has(needs=4) == SlotLease(slots=1, others=3)


async def test_an_empty_server_lends_nothing_of_old_runs(redis_server: Any, when: When) -> None:
    """Until all whom somebody has known have spoken, or a whole lease has passed; but slots of new runs at once."""
    async with on_redis(redis_server.url(), when) as before:
        ann, bob = await borrowers(before, "ann", "bob")
        await bob.has(likes=2)
    when.server, when.age_secs = "second", 0.0
    async with on_redis(redis_server.url(), when) as after:
        new = Borrower(after, "new")
        claims = {"r": SlotClaim(limit=4, needs=4), "s": SlotClaim(limit=4, needs=4, age=Age.NEWBORN)}
        assert {run_id: lease.slots for run_id, lease in (await new.say(**claims)).items()} == {"r": 0, "s": 4}
        ann.slots = bob.slots = after
        await ann.say(is_full=True)
        assert ann.answer.borrowers == ("ann", "bob", "new")
        assert not ann.answer.is_open
        lease = (await bob.say(is_full=True, r=SlotClaim(limit=4, keeps=2)))["r"]
        assert bob.answer.is_open
        assert lease == SlotLease(slots=2, others=2, unmet=2), "what is free by now is for who has waited"


async def test_slots_of_a_run_that_began_after_the_loss_are_lent_at_once(redis_server: Any, when: When) -> None:
    """Also to a gateway that heard of it late; not when the server was lost once more."""
    with redis_server.client() as client:
        when.server, when.age_secs = client.info("server")["run_id"], 0.0
    namespace = new_namespace()
    async with open_signals(redis_server.url(), namespace=namespace) as signals:
        new = RunRoute(run_id="r", actor_id="a", user_id="u", live_view_label="l", readiness=Readiness.STARTING)
        await signals.put_route(new)
        await signals.put_route(replace(new, run_id="old", address=Address(host="127.0.0.1", port=1)))
    async with on_redis(redis_server.url(), when, namespace) as slots:
        ann, bob = await borrowers(slots, "ann", "bob")
        assert await ann.has(likes=1) == SlotLease(slots=1)
        assert await bob.has(needs=3) == SlotLease(slots=3, others=1)
        assert (await bob.say(old=SlotClaim(limit=4, needs=1)))["old"].slots == 0
        when.server = "second"
        await ann.say(is_full=True)
        assert (await bob.say(is_full=True, r=SlotClaim(limit=4, needs=4)))["r"].slots == 0


async def test_an_empty_server_that_nobody_vouches_for_waits_for_a_whole_lease(
    on_real_redis: RedisSlots, when: When
) -> None:
    """Newcomers can't know of others; what the server's own age says is believed."""
    when.age_secs = 10.0
    ann, bob = await borrowers(on_real_redis, "ann", "bob")
    assert (await ann.has(needs=1)).slots == 0
    when.now += LEASE_SECS - 10.0
    assert (await bob.has(needs=1)).slots == 1
    assert bob.answer.is_open


async def test_time_and_server_are_redis_own(redis_server: Any) -> None:
    """Of a server that was up for less than a lease, a new run's slots are lent all the same; keys have an expiry."""
    namespace = new_namespace()
    async with on_redis(redis_server.url(), None, namespace) as slots:
        ann = Borrower(slots, "ann")
        await ann.say()
        assert (await ann.has(likes=1, age=Age.NEWBORN)).slots == 1
    with redis_server.client() as client:
        keys = list(client.scan_iter(f"{{{namespace}}}:*"))
        assert {key.partition("}:")[2] for key in keys} == {"slots", "slots:borrowers", "slots:run:r"}
        assert all(client.ttl(key) > 0 for key in keys)
        server = client.info("server")
        assert client.hget(f"{{{namespace}}}:slots", "server") == server["run_id"]


NAMES, RUNS = ("ann", "bob", "cyd"), ("r", "s")
COUNTS = st.integers(0, 3)
CLAIMS = st.dictionaries(
    st.sampled_from(RUNS),
    st.builds(SlotClaim, limit=COUNTS, keeps=COUNTS, needs=COUNTS, likes=COUNTS, age=st.sampled_from(Age)),
)
CALLS = st.tuples(
    st.sampled_from(NAMES),
    CLAIMS,
    st.sampled_from(["as it should", "full", "late", "of another epoch"]),
    st.sampled_from([None, 0.0, 20.0]),
    st.sets(st.sampled_from((*NAMES, "dan"))),
)
STEPS = st.one_of(
    CALLS,
    st.tuples(st.just("time"), st.sampled_from([0.125, NEED_SECS, 50.0, LEASE_SECS])),
    st.tuples(st.just("server"), st.sampled_from([0.0, 60.0, 1000.0])),
    st.tuples(st.just("withdraw"), st.sampled_from(NAMES)),
    st.tuples(st.just("began"), st.sampled_from(RUNS)),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, max_size=40))
def test_the_script_does_what_the_ledger_does(redis_server: Any, steps: list[Any]) -> None:
    """Call by call the same answers and the same messages, whatever is said and whatever happens."""
    asyncio.run(_compare(redis_server, steps))


async def _compare(server: Any, steps: list[Any]) -> None:
    when, ledger, last = When(), SlotLedger(), {name: (0, SlotAnswer(heard=Heard.UNKNOWN)) for name in NAMES}
    expected: dict[str, list[SlotMessage]] = {name: [] for name in NAMES}
    async with on_redis(server.url(), when) as slots, AsyncExitStack() as stack:
        heard = {name: await stack.enter_async_context(slots.watch(name)) for name in NAMES}
        for step in steps:
            for run_id in RUNS:
                known = ledger.holders(
                    run_id, now=when.now, server=when.server, age_secs=min(when.age_secs, LEASE_SECS)
                )
                assert await slots.holders(run_id) == known
            match step:
                case ("time", secs):
                    when.now += secs
                case ("server", age_secs):
                    when.server, when.age_secs = when.server + "x", age_secs
                case ("began", run_id):
                    ledger.began(run_id, server=when.server)
                    with server.client() as client:
                        client.hset(slots.run_key(run_id), "born", when.server)
                case ("withdraw", name):
                    ledger.withdraw(name)
                    await slots.withdraw(name)
                case (name, claims, manner, complete_in_secs, knows):
                    number, answer = last[name]
                    request = SlotRequest(
                        borrower=name,
                        number=number + (0 if manner == "late" else 1),
                        epoch="another" if manner == "of another epoch" else answer.epoch,
                        seen=answer.joins,
                        is_full=manner == "full" or (manner == "as it should" and not answer.epoch),
                        complete_in_secs=complete_in_secs,
                        knows=tuple(sorted(knows)),
                        claims=claims,
                    )
                    settled = ledger.settle(
                        request, now=when.now, server=when.server, age_secs=min(when.age_secs, LEASE_SECS)
                    )
                    assert await slots.settle(request) == settled.answer
                    for other, message in settled.messages:
                        expected[other].append(message)
                    if settled.answer.heard is Heard.UNKNOWN:
                        last[name] = request.number, SlotAnswer(heard=Heard.UNKNOWN)
                    elif settled.answer.heard is Heard.DONE:
                        last[name] = request.number, settled.answer
        for name in NAMES:
            with server.client() as client:  # the last word, so that there is none beyond those that are expected
                client.publish(slots.channel(name), "joined")
            told = [await anext(heard[name]) for _ in range(len(expected[name]) + 1)]
            assert told == [*expected[name], SlotMessage(word=SlotWord.JOINED)]
