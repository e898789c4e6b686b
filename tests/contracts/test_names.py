"""What every store of records promises about the further names of Actors."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest

from gateway.core.errors import NameNotUnique, RecordNotFound
from gateway.core.model import Actor, User
from gateway.core.names import ActorName, NameKind
from gateway.state.ports import Records

START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
_numbers = count()


def a_name(actor: Actor, name: str, **changes: Any) -> ActorName:
    number = next(_numbers)
    made = ActorName(
        id=f"{number:017}",
        actor_id=actor.id,
        user_id=actor.user_id,
        kind=NameKind.DOMAIN,
        name=name,
        challenge=f"{number:032}",
        created_at=START + timedelta(seconds=number),
    )
    return replace(made, **changes)


@pytest.fixture
async def actors(records: Records) -> list[Actor]:
    """Four Actors: two of bob and two of eve."""
    made = []
    for user_id in ("bob", "eve"):
        await records.add_user(User(id=user_id, username=user_id, is_admin=False, created_at=START))
        for name in ("first", "second"):
            actor = Actor(id=f"{user_id}-{name}", user_id=user_id, name=name, created_at=START, modified_at=START)
            await records.add_actor(actor)
            made.append(actor)
    return made


async def test_names_are_listed_by_actor_and_by_name(records: Records, actors: list[Actor]) -> None:
    """In the order of their creation: those of one Actor, those of all, and all claims of one name."""
    first = [a_name(actors[0], "a.test"), a_name(actors[0], "alias", kind=NameKind.ALIAS, verified_at=START)]
    other = a_name(actors[2], "a.test")
    for name in (other, first[1], first[0]):
        await records.add_name(name)
    assert await records.list_names(actors[0].id) == first
    assert await records.list_names(actors[1].id) == []
    assert await records.list_names(None) == [*first, other]
    assert await records.claims_of("a.test") == [first[0], other]
    assert await records.claims_of("A.test") == []


async def test_many_may_claim_a_name_but_one_has_it(records: Records, actors: list[Actor]) -> None:
    """Of several claims that are proven at once exactly one is verified; the others stay what they were."""
    claims = [a_name(actor, "shop.test") for actor in actors]
    for claim in claims:
        await records.add_name(claim)
    outcomes = await asyncio.gather(*(records.verify_name(claim.id, START) for claim in claims), return_exceptions=True)
    (won,) = [outcome for outcome in outcomes if isinstance(outcome, ActorName)]
    assert won == replace(next(claim for claim in claims if claim.id == won.id), verified_at=START)
    assert [outcome for outcome in outcomes if not isinstance(outcome, ActorName | NameNotUnique)] == []
    assert await records.claims_of("shop.test") == [won if claim.id == won.id else claim for claim in claims]


async def test_a_name_that_is_released_is_free(records: Records, actors: list[Actor]) -> None:
    """While one Actor has it nobody else can; afterwards the next claim can be verified."""
    held, waiting = a_name(actors[0], "shop.test", verified_at=START), a_name(actors[2], "shop.test")
    await records.add_name(held)
    await records.add_name(waiting)
    with pytest.raises(NameNotUnique):
        await records.verify_name(waiting.id, START)
    with pytest.raises(NameNotUnique):
        await records.add_name(a_name(actors[1], "shop.test", verified_at=START))
    await records.delete_name(held.id)
    await records.delete_name(held.id)
    assert (await records.verify_name(waiting.id, START)).is_verified


async def test_verifying_again_is_fine(records: Records, actors: list[Actor]) -> None:
    """It moves the time."""
    name = a_name(actors[0], "shop.test", verified_at=START)
    await records.add_name(name)
    later = START + timedelta(days=1)
    assert await records.verify_name(name.id, later) == replace(name, verified_at=later)


async def test_an_actor_claims_a_name_once(records: Records, actors: list[Actor]) -> None:
    """A second claim of the same Actor is refused, also while none is verified."""
    await records.add_name(a_name(actors[0], "shop.test"))
    with pytest.raises(NameNotUnique, match=r"shop\.test"):
        await records.add_name(a_name(actors[0], "shop.test"))


async def test_what_is_not_there(records: Records, actors: list[Actor]) -> None:
    """A name of nobody's Actor can't be added, and one that is gone can't be verified."""
    with pytest.raises(RecordNotFound):
        await records.add_name(replace(a_name(actors[0], "shop.test"), actor_id="nobody"))
    with pytest.raises(RecordNotFound):
        await records.verify_name("nothing", START)


async def test_names_go_with_their_actor(records: Records, actors: list[Actor]) -> None:
    """They are free at once; those of others stay."""
    await records.add_name(a_name(actors[0], "shop.test", verified_at=START))
    kept = a_name(actors[1], "other.test", verified_at=START)
    await records.add_name(kept)
    await records.delete_actor(actors[0].id)
    assert await records.list_names(None) == [kept]
    await records.add_name(a_name(actors[2], "shop.test", verified_at=START))
