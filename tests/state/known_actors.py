"""Actors and their owner, and how a directory that is told of them is asked."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from gateway.core.model import Actor, TaggedBuild, User
from gateway.state.directory import Directory
from gateway.state.ports import Changed, Records

AT = datetime(2026, 1, 2, tzinfo=UTC)
BOB = User(id="BobId000000000001", username="Bob.Smith", is_admin=False, created_at=AT)
HELLO = Actor(
    id="HelloId0000000001",
    user_id=BOB.id,
    name="Hello",
    created_at=AT,
    modified_at=AT,
    standby_from_file={"isEnabled": True},
    tagged_builds={"latest": TaggedBuild(build_id="b", build_number="0.1.1", finished_at=AT)},
)
OTHER = replace(HELLO, id="OtherId0000000001", name="other", created_at=AT + timedelta(seconds=1))
THIRD = replace(HELLO, id="ThirdId0000000001", name="third")
FIRST_NAMES = {actor.id: actor.name for actor in (HELLO, OTHER, THIRD)}


def name(directory: Directory, label: str) -> str | None:
    """What its Actor was called when it was made."""
    target = directory.target(label)
    return FIRST_NAMES[target.actor_id] if target else None


async def told(directory: Directory, *actors: Actor) -> None:
    """Tell that they have changed, in this order."""
    for actor in actors:
        await directory._hear(Changed(kind="actor", id=actor.id))


async def present(records: Records) -> Actor:
    """``HELLO`` as it stands."""
    actor = await records.actor(HELLO.id)
    assert actor is not None
    return actor
