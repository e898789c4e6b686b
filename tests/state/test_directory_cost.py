"""What the directory of hosts costs in questions and in memory, against real records."""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter
from dataclasses import replace
from typing import Any, cast

import pytest
from sqlalchemy import update
from state.known_actors import BOB, HELLO, OTHER, present, told

from gateway.core.model import Actor
from gateway.state.directory import Directory
from gateway.state.ports import Changed, Records
from gateway.state.tables import users


class Counted:
    """Records that count what is asked of them."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self.asked: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        self.asked[name] += 1
        return getattr(self._records, name)


async def add_many(records: Records, count: int, **changes: Any) -> list[Actor]:
    made = [replace(OTHER, id=f"NumberId{number:09d}", name=f"number-{number}", **changes) for number in range(count)]
    for actor in made:
        await records.add_actor(actor)
    return made


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        pytest.param({}, set(), id="tagged builds"),
        pytest.param({"tagged_builds": {}}, set(), id="no build"),
        pytest.param({"standby_from_api": {"build": "0.1.6"}}, {"succeeded_builds"}, id="builds named by number"),
    ],
)
async def test_reading_all_costs_a_few_questions_a_page(
    records: Records, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], more: set[str]
) -> None:
    """However many Actors there are in it, and whatever they need; the second time those that stayed are not read."""
    monkeypatch.setattr("gateway.state.directory._PAGE", 5)
    await add_many(records, 14, **changes)
    counted = Counted(records)
    directory = Directory(cast(Records, counted))
    await directory.load()
    assert len(directory.targets()) == 15
    once = {"list_users": 1, "list_names": 1, "actor_stamps": 4}
    assert counted.asked == {**once, "actors_by_id": 3, **dict.fromkeys(more, 3)}
    counted.asked.clear()
    await directory.load()
    read_again = {"actors_by_id": 3, **dict.fromkeys(more, 3)} if more else {}
    assert counted.asked == {**once, **read_again}


@pytest.mark.parametrize("what", ["settings", "owner's name", "is_public"])
async def test_reading_all_again_finds_what_has_changed(records: Records, what: str) -> None:
    """And only that is read."""
    await add_many(records, 3)
    counted = Counted(records)
    directory = Directory(cast(Records, counted))
    await directory.load()
    before = directory.target("bob-smith--number-1")
    hello = await present(records)
    if what == "owner's name":
        await rename_owner(records, "Robert")
    else:
        change = {"standby_from_api": {"memoryMbytes": 512}} if what == "settings" else {"is_public": True}
        await records.replace_actor(replace(hello, **change))
    counted.asked.clear()
    await directory.load()
    target = directory.target("helloid0000000001")
    assert target is not None
    assert {
        "settings": target.config.memory_mbytes == 512,
        "owner's name": directory.target("robert--hello") is target,
        "is_public": target.is_public_actor,
    }[what]
    assert counted.asked["actors_by_id"] == 1
    assert (directory.target("bob-smith--number-1") is before) == (what != "owner's name")


async def rename_owner(records: Records, username: str) -> None:
    database = cast(Any, records)._database
    await database.write(lambda connection: connection.execute(update(users).values(username=username)))


async def test_what_is_equal_is_kept_once(records: Records, directory: Directory) -> None:
    """Settings and owners of thousands of Actors are mostly the same."""
    many = await add_many(records, 3)
    await records.replace_actor(replace(many[0], standby_from_api={"minRuns": 1}))
    await directory.load()
    targets = {target.actor_id: target for target in directory.targets()}
    assert len({id(target.config) for target in targets.values()}) == 2
    assert len({id(target.owner_id) for target in targets.values()}) == 1
    assert len({id(target.owner_name) for target in targets.values()}) == 1
    await told(directory, many[1])
    assert directory.target("bob-smith--number-1") is targets[many[1].id]


async def test_settings_are_remembered_within_bounds(
    records: Records, directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever changes his settings all day fills no memory."""
    monkeypatch.setattr("gateway.state.directory._MAX_CONFIGS", 4)
    hello = await present(records)
    for secs in range(1, 20):
        hello = await records.replace_actor(replace(hello, standby_from_api={"idleTimeoutSecs": secs}))
        await told(directory, hello)
        assert len(directory._configs) <= 4


async def test_an_actor_that_is_asked_for_again_is_not_read_again(records: Records) -> None:
    """Until it changes: whoever starts a run of it gets it as it is."""
    counted = Counted(records)
    directory = Directory(cast(Records, counted))
    await directory.load()
    assert await directory.actor(HELLO.id) == await directory.actor(HELLO.id) == (HELLO, BOB)
    assert counted.asked["actor"] == 1
    changed = await records.replace_actor(replace(HELLO, title="Hello!"))
    await told(directory, changed)
    assert await directory.actor(HELLO.id) == (changed, BOB)
    await rename_owner(records, "Robert")
    await directory._hear(Changed(kind="user", id=BOB.id))
    assert await directory.actor(HELLO.id) == (changed, replace(BOB, username="Robert"))
    await records.delete_actor(HELLO.id)
    await told(directory, HELLO)
    assert await directory.actor(HELLO.id) is None


async def test_the_actors_asked_for_are_remembered_within_bounds(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last few, and as many more as are kept warm."""
    monkeypatch.setattr("gateway.state.directory._MAX_RECENT", 3)
    many = await add_many(records, 6)
    counted = Counted(records)
    directory = Directory(cast(Records, counted))
    await directory.load()
    for actor in many:
        await directory.actor(actor.id)
    counted.asked.clear()
    for actor in many[3:]:
        await directory.actor(actor.id)
    assert not counted.asked
    await directory.actor(many[0].id)
    assert counted.asked["actor"] == 1
    assert len(directory._recent) == 3


async def test_a_change_costs_a_few_questions(records: Records) -> None:
    """About the Actor that has changed, whatever others there are."""
    many = await add_many(records, 3)
    counted = Counted(records)
    directory = Directory(cast(Records, counted))
    await directory.load()
    counted.asked.clear()
    await told(directory, many[1])
    assert counted.asked == {"actor": 1, "user": 1, "list_names": 1}


async def test_a_known_actor_takes_little_memory(records: Records, directory: Directory) -> None:
    """Some 500 bytes: its record, with its title and its settings as they were given, is not kept."""
    await add_many(
        records,
        500,
        title="A title",
        description="what it does, " * 20,
        standby_from_api={"minRuns": 0, "idleTimeoutSecs": 60, "maxRequestsPerActorRun": 8},
        extra={"seoTitle": "A title", "categories": ["A", "B"]},
    )
    await directory.load()  # what the first question needs for ever
    assert min([await kept_bytes(records) for _ in range(3)]) / 500 < 600  # others' caches may grow in one of them


async def kept_bytes(records: Records) -> int:
    """What a Directory holds once it is loaded."""
    directory = Directory(records)
    tracemalloc.start()
    try:
        await directory.load()
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(directory.targets()) == 501
    return kept
