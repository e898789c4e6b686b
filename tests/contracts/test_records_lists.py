"""Looking for records: pages, filters, and many at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from contracts.given_records import START, a_build, a_decision, a_run, a_user, add_run, an_actor

from gateway.core.lifecycle import RunStatus
from gateway.core.model import (
    Actor,
    Page,
    User,
)
from gateway.state.ports import Records
from gateway.state.records import SqlRecords


@dataclass(frozen=True)
class Listed:
    """One kind of list: its records in the order of their times, and the call."""

    items: list[Any]
    call: Callable[[Page], Awaitable[Any]]


async def listed(records: Records, kind: str) -> Listed:
    """Seven records of *kind*, added out of order, two of them with the same time."""
    user = a_user()
    await records.add_user(user)
    times = [START + timedelta(seconds=second) for second in (0, 1, 2, 2, 3, 4, 5)]
    if kind == "actors":
        actors = [an_actor(user.id, created_at=at) for at in times]
        for actor in actors[::-1]:
            await records.add_actor(actor)
        return Listed(actors, lambda page: records.list_actors(user.id, page))
    if kind == "builds":
        actor = an_actor(user.id)
        await records.add_actor(actor)
        builds = [a_build(actor, started_at=at, build_number=f"0.1.{i}") for i, at in enumerate(times)]
        for build in builds[::-1]:
            await records.add_build(build)
        return Listed(builds, lambda page: records.list_builds(None, actor.id, page))
    if kind == "runs":
        runs = [a_run(user.id, started_at=at) for at in times]
        for run in runs[::-1]:
            await add_run(records, run)
        return Listed(runs, lambda page: records.list_runs(user_id=user.id, page=page))
    decisions = [a_decision(f"pool-of-{user.id}", at=at) for at in times]
    for decision in decisions[::-1]:
        await records.add_decisions([decision])
    return Listed(decisions, lambda page: records.list_decisions(f"pool-of-{user.id}", page))


@pytest.mark.parametrize("kind", ["actors", "builds", "runs", "decisions"])
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(Page(), id="all"),
        pytest.param(Page(desc=True), id="newest first"),
        pytest.param(Page(offset=2, limit=3), id="a part"),
        pytest.param(Page(offset=2, limit=3, desc=True), id="a part of newest first"),
        pytest.param(Page(offset=6, limit=3), id="the last one"),
        pytest.param(Page(offset=7), id="beyond the end"),
        pytest.param(Page(limit=0), id="none"),
    ],
)
async def test_pages(records: SqlRecords, kind: str, page: Page):
    """A page is a slice of all by time, then id, or of the reverse; the total counts all, whatever the page."""
    await listed(records, kind)  # somebody else's
    mine = await listed(records, kind)
    answer = await mine.call(page)
    ordered = mine.items[::-1] if page.desc else mine.items
    assert list(answer.items) == ordered[page.offset : page.offset + page.limit]
    assert answer.total == 7


async def test_filters(records: SqlRecords, user: User, actor: Actor):
    """None asks for all; each filter holds together with the others."""
    other = a_user()
    await records.add_user(other)
    others_actor = an_actor(other.id)
    await records.add_actor(others_actor)
    assert (await records.list_actors(None, Page())).total == 2
    assert (await records.list_actors(other.id, Page())).items == (others_actor,)

    mine = await records.add_build(a_build(actor))
    theirs = await records.add_build(a_build(others_actor))
    assert (await records.list_builds(None, None, Page())).items == (mine, theirs)
    assert (await records.list_builds(user.id, None, Page())).items == (mine,)
    assert (await records.list_builds(user.id, others_actor.id, Page())).items == ()
    assert await records.build_by_number(mine.actor_id, mine.build_number) == mine
    assert await records.build_by_number(mine.actor_id, "9.9.9") is None

    ready = await add_run(records, a_run(user.id, actor_id=actor.id))
    failed = await add_run(records, a_run(user.id, actor_id=actor.id, status=RunStatus.FAILED))
    aborted = await add_run(records, a_run(other.id, actor_id=actor.id, status=RunStatus.ABORTED))
    for asked, expected in (
        ({}, [ready, failed, aborted]),
        ({"actor_id": actor.id, "user_id": user.id}, [ready, failed]),
        ({"statuses": frozenset({RunStatus.FAILED, RunStatus.ABORTED})}, [failed, aborted]),
        ({"statuses": frozenset({RunStatus.FAILED}), "user_id": other.id}, []),
        ({"actor_id": "another"}, []),
    ):
        answer = await records.list_runs(**asked)
        assert (list(answer.items), answer.total) == (expected, len(expected)), asked


async def test_actors_by_their_stamps(records: SqlRecords, user: User):
    """All in the order of their ids, each with its version, in pages that begin after an id."""
    made = [an_actor(user.id) for _ in range(5)]
    for actor in reversed(made):
        await records.add_actor(actor)
    await records.replace_actor(made[2])
    expected = [(actor.id, 2 if actor is made[2] else 1) for actor in made]
    assert await records.actor_stamps("", 2) == expected[:2]
    assert await records.actor_stamps(made[1].id, 2) == expected[2:4]
    assert await records.actor_stamps(made[3].id, 2) == expected[4:]
    assert await records.actor_stamps(made[4].id, 2) == []


async def test_several_actors_at_once(records: SqlRecords, user: User):
    """Those that there are of the ones asked for; none for none."""
    made = [an_actor(user.id) for _ in range(3)]
    for actor in made:
        await records.add_actor(actor)
    found = await records.actors_by_id([made[0].id, made[2].id, "nobody", made[0].id])
    assert sorted(found, key=lambda actor: actor.id) == [made[0], made[2]]
    assert await records.actors_by_id([]) == []


async def test_builds_that_succeeded_by_their_numbers(records: SqlRecords, user: User, actor: Actor):
    """Each of the Actor that it was asked of, and none that failed or goes on."""
    other = an_actor(user.id)
    await records.add_actor(other)
    statuses = (RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.RUNNING)
    first, failed, running = [await records.add_build(a_build(actor, status=status)) for status in statuses]
    foreign = await records.add_build(a_build(other, build_number="0.1.9", status=RunStatus.SUCCEEDED))
    asked = [(build.actor_id, build.build_number) for build in (first, failed, running, foreign)]
    found = await records.succeeded_builds([*asked, (actor.id, "0.1.9"), ("nobody", "0.1.1")])
    assert found == {asked[0]: first.id, asked[3]: foreign.id}
    assert await records.succeeded_builds([]) == {}
