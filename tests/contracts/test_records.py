"""What every store of records promises: names, versions, builds, runs, tokens, and who may overwrite whom."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from contracts.given_records import (
    START,
    a_build,
    a_decision,
    a_run,
    a_token,
    a_user,
    add_run,
    an_actor,
    make,
    new_id,
    storages_of,
)

from gateway.core.errors import ActorNameNotUnique, Conflict, NameNotUnique, RecordNotFound
from gateway.core.lifecycle import TERMINAL, RunStatus
from gateway.core.model import (
    Actor,
    ActorTask,
    ActorVersion,
    Page,
    StorageKind,
    TaggedBuild,
    User,
)
from gateway.state.records import SqlRecords


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param("jane", "jane", id="same"),
        pytest.param("jane", "JANE", id="case"),
        pytest.param("jane.doe", "jane-doe", id="same in host names"),
        pytest.param("jane_doe", "Jane.Doe", id="same in host names, by case too"),
    ],
)
async def test_usernames_are_unique_in_host_names(records: SqlRecords, first: str, second: str):
    """The second of two names with one DNS-friendly form is refused, and either finds the first."""
    user = a_user(username=first)
    await records.add_user(user)
    with pytest.raises(NameNotUnique, match=second):
        await records.add_user(a_user(username=second))
    assert await records.user_by_name(first) == user
    assert await records.user_by_name(second) == user
    assert await records.list_users() == [user]


async def test_actor_names_are_unique_for_their_owner(records: SqlRecords, user: User):
    """Without regard to case; another user may have the same name."""
    other = a_user()
    await records.add_user(other)
    hello, others = an_actor(user.id, name="Hello"), an_actor(other.id, name="hello")
    await records.add_actor(hello)
    await records.add_actor(others)
    with pytest.raises(ActorNameNotUnique, match="hELLO"):
        await records.add_actor(an_actor(user.id, name="hELLO"))
    assert await records.actor_by_name(user.id, "HELLO") == hello
    assert await records.actor_by_name(other.id, "Hello") == others
    assert await records.actor_by_name(user.id, "other") is None

    renamed = an_actor(user.id)
    await records.add_actor(renamed)
    with pytest.raises(ActorNameNotUnique):
        await records.replace_actor(replace(renamed, name="HELLO"))
    assert await records.actor(renamed.id) == renamed
    assert (await records.replace_actor(replace(hello, name="HELLO"))).name == "HELLO"


async def test_other_names_are_unique(records: SqlRecords, user: User, actor: Actor):
    """Tasks by name without case, tokens by their hash."""
    task = ActorTask(id=new_id(), actor_id=actor.id, user_id=user.id, name="Daily", created_at=START, modified_at=START)
    await records.add_task(task)
    with pytest.raises(NameNotUnique, match="daily"):
        await records.add_task(replace(task, id=new_id(), name="daily"))

    token = a_token(user.id)
    await records.add_token(token)
    with pytest.raises(NameNotUnique):
        await records.add_token(replace(token, id=new_id()))


@pytest.mark.parametrize("kind", ["actor", "token", "build", "version", "task", "run"])
async def test_an_owner_must_exist(records: SqlRecords, kind: str):
    """A record that belongs to a user or an Actor who isn't there (any more) is refused as not found."""
    nobody = an_actor("nobody")
    task = ActorTask(id=new_id(), actor_id="x", user_id="nobody", name="task", created_at=START, modified_at=START)
    version = ActorVersion(actor_id="x", version_number="0.1", source_type="SOURCE_FILES", source={})
    verbs: dict[str, Callable[[], Awaitable[Any]]] = {
        "actor": lambda: records.add_actor(nobody),
        "token": lambda: records.add_token(a_token("nobody")),
        "build": lambda: records.add_build(a_build(nobody)),
        "version": lambda: records.put_version(version),
        "task": lambda: records.add_task(task),
        "run": lambda: add_run(records, a_run("nobody")),
    }
    with pytest.raises(RecordNotFound):
        await verbs[kind]()


@pytest.mark.parametrize("kind", ["actor", "build", "run"])
class TestCompareAndSet:
    """``replace_*``, the only way to change these records."""

    async def test_a_change_is_stored_under_the_next_version(
        self, records: SqlRecords, user: User, actor: Actor, kind: str
    ):
        """It returns what was stored."""
        record, change = await make(records, kind, user, actor)
        stored = await change(replace(record, **{_free_text(kind): "new"}))
        assert stored == replace(record, version=record.version + 1, **{_free_text(kind): "new"})
        assert await getattr(records, kind)(record.id) == stored

    async def test_of_two_at_once_one_wins(self, records: SqlRecords, user: User, actor: Actor, kind: str):
        """Of many who read the same version, exactly one changes it, and the others learn that they lost."""
        record, change = await make(records, kind, user, actor)
        attempts = [replace(record, **{_free_text(kind): f"from {i}"}) for i in range(8)]
        results = await asyncio.gather(*(change(attempt) for attempt in attempts), return_exceptions=True)
        won = [result for result in results if not isinstance(result, BaseException)]
        assert len(won) == 1
        assert sum(isinstance(result, Conflict) for result in results) == len(attempts) - 1
        assert await getattr(records, kind)(record.id) == won[0]

    async def test_an_old_version_loses(self, records: SqlRecords, user: User, actor: Actor, kind: str):
        """A late report can't undo what was stored meanwhile."""
        record, change = await make(records, kind, user, actor)
        stored = await change(record)
        with pytest.raises(Conflict, match=record.id):
            await change(replace(record, **{_free_text(kind): "late"}))
        assert await getattr(records, kind)(record.id) == stored

    async def test_what_is_gone_is_not_found(self, records: SqlRecords, user: User, actor: Actor, kind: str):
        """A deleted record can't be changed, and does not come back."""
        record, change = await make(records, kind, user, actor)
        await getattr(records, f"delete_{kind}")(record.id)
        with pytest.raises(RecordNotFound):
            await change(record)
        assert await getattr(records, kind)(record.id) is None


@pytest.mark.parametrize("stale", ["neither", "build", "actor"])
async def test_a_build_and_its_tag_are_finished_together(records: SqlRecords, actor: Actor, stale: str):
    """Both are stored or, where one of them has changed meanwhile, none of them."""
    build = await records.add_build(a_build(actor))
    if stale == "build":
        await records.replace_build(build)
    elif stale == "actor":
        await records.replace_actor(actor)
    before = await records.build(build.id), await records.actor(actor.id)
    pointed = TaggedBuild(build_id=build.id, build_number=build.build_number, finished_at=START)
    finished = replace(build, status=RunStatus.SUCCEEDED), replace(actor, tagged_builds={"latest": pointed})
    if stale != "neither":
        with pytest.raises(Conflict):
            await records.finish_build(*finished)
        assert (await records.build(build.id), await records.actor(actor.id)) == before
        return
    assert await records.finish_build(*finished) == replace(finished[0], version=build.version + 1)
    assert await records.build(build.id) == replace(finished[0], version=build.version + 1)
    assert await records.actor(actor.id) == replace(finished[1], version=actor.version + 1)


def _free_text(kind: str) -> str:
    return "title" if kind == "actor" else "status_message"


async def test_versions_are_put_and_listed(records: SqlRecords, actor: Actor):
    """A version is created, then overwritten; versions are listed by number, not by letters."""
    made = {
        number: ActorVersion(actor_id=actor.id, version_number=number, source_type="TARBALL", source={"n": number})
        for number in ("0.10", "1.0", "0.9")
    }
    for version in made.values():
        await records.put_version(version)
    changed = replace(made["0.10"], build_tag="beta", source={})
    await records.put_version(changed)
    assert await records.actor_version(actor.id, "0.10") == changed
    assert await records.list_versions(actor.id) == [made["0.9"], changed, made["1.0"]]
    await records.delete_version(actor.id, "0.9")
    assert await records.actor_version(actor.id, "0.9") is None
    assert await records.list_versions("another") == []


async def test_build_numbers_have_no_gap_and_no_double(records: SqlRecords, actor: Actor):
    """Twenty builds at once get 0.1.1 to 0.1.20, and each hears its own number."""
    builds = await asyncio.gather(*(records.add_build(a_build(actor)) for _ in range(20)))
    assert sorted(int(build.build_number.removeprefix("0.1.")) for build in builds) == list(range(1, 21))
    for build in builds:
        assert await records.build(build.id) == build


async def test_build_numbers_count_within_their_version(records: SqlRecords, user: User, actor: Actor):
    """Each version of each Actor counts for itself; a number is never given twice, also when its build is deleted."""
    other = an_actor(user.id)
    await records.add_actor(other)
    first = await records.add_build(a_build(actor))
    numbers = [
        (await records.add_build(a_build(actor, version_number="0.2"))).build_number,
        (await records.add_build(a_build(other))).build_number,
    ]
    await records.delete_build(first.id)
    numbers.append((await records.add_build(a_build(actor))).build_number)
    assert numbers == ["0.2.1", "0.1.1", "0.1.2"]


async def test_a_given_build_number_is_kept(records: SqlRecords, actor: Actor):
    """If it is free; the next number comes after it."""
    given_number = await records.add_build(a_build(actor, build_number="0.1.7"))
    assert given_number.build_number == "0.1.7"
    assert (await records.add_build(a_build(actor))).build_number == "0.1.8"
    with pytest.raises(NameNotUnique, match=r"0\.1\.7"):
        await records.add_build(a_build(actor, build_number="0.1.7"))
    assert (await records.add_build(a_build(actor))).build_number == "0.1.9"


async def test_a_run_comes_with_its_token_and_storages(records: SqlRecords, user: User):
    """All are there after one call, and the run is found by the label of its live view."""
    run = a_run(user.id)
    token, storages = a_token(user.id, run_id=run.id), storages_of(run)
    await records.add_run(run, token, iter(storages))
    assert await records.run(run.id) == run
    assert await records.run_by_live_view_label(run.live_view_label) == run
    assert await records.run_by_live_view_label("another") is None
    assert await records.token_by_hash(token.token_hash) == token
    for storage in storages:
        assert await records.storages.storage(storage.kind, storage.id) == storage
    assert await records.storages.storage(StorageKind.DATASET, run.default_key_value_store_id) is None


@pytest.mark.parametrize("clash", ["label", "token", "storage"])
async def test_a_run_is_added_wholly_or_not_at_all(records: SqlRecords, user: User, clash: str):
    """Whichever of its records can't be stored, none of the others is left behind."""
    first = a_run(user.id)
    first_token = a_token(user.id, run_id=first.id)
    await records.add_run(first, first_token, storages_of(first))
    second = a_run(user.id, **({"live_view_label": first.live_view_label} if clash == "label" else {}))
    token = a_token(user.id, run_id=second.id, **({"token_hash": first_token.token_hash} if clash == "token" else {}))
    storages = storages_of(second)
    if clash == "storage":
        storages[2] = replace(storages[2], id=first.default_request_queue_id)
    with pytest.raises(NameNotUnique):
        await records.add_run(second, token, storages)
    assert await records.run(second.id) is None
    assert await records.list_tokens(user.id) == [first_token]
    for storage in storages_of(second):
        assert await records.storages.storage(storage.kind, storage.id) is None


async def test_active_runs_and_builds(records: SqlRecords, user: User, actor: Actor):
    """Exactly those that have not ended, oldest first."""
    runs, builds = [], []
    for i, status in enumerate(RunStatus):
        at = START - timedelta(seconds=i)
        runs.append(await add_run(records, a_run(user.id, status=status, started_at=at)))
        builds.append(await records.add_build(a_build(actor, status=status, started_at=at)))
    assert await records.active_runs() == [run for run in reversed(runs) if run.status not in TERMINAL]
    assert await records.active_builds() == [build for build in reversed(builds) if build.status not in TERMINAL]


async def test_tokens(records: SqlRecords, user: User):
    """They are found by hash, listed by owner in order, and deleted one by one."""
    other = a_user()
    await records.add_user(other)
    later = a_token(user.id, created_at=START + timedelta(seconds=1), expires_at=START + timedelta(days=1))
    first, others = a_token(user.id), a_token(other.id)
    for token in (later, first, others):
        await records.add_token(token)
    assert await records.list_tokens(user.id) == [first, later]
    await records.delete_token(first.id)
    await records.delete_token(first.id)
    assert await records.token_by_hash(first.token_hash) is None
    assert await records.list_tokens(user.id) == [later]
    assert await records.token_by_hash(others.token_hash) == others


@pytest.mark.parametrize("end", ["its end", "its deletion"])
async def test_a_runs_token_dies_with_it(records: SqlRecords, user: User, end: str):
    """A terminal status or its deletion takes its tokens in the same write, and nobody else's; a live status none."""
    own = a_token(user.id)
    await records.add_token(own)
    ended, other = await add_run(records, a_run(user.id)), await add_run(records, a_run(user.id))
    running = await records.replace_run(replace(ended, status=RunStatus.RUNNING))
    assert {token.run_id for token in await records.list_tokens(user.id)} == {None, ended.id, other.id}
    if end == "its end":
        await records.replace_run(replace(running, status=RunStatus.SUCCEEDED))
    else:
        await records.delete_run(ended.id)
    assert {token.run_id for token in await records.list_tokens(user.id)} == {None, other.id}


async def test_deleting_an_actor(records: SqlRecords, user: User, actor: Actor):
    """Its versions, builds, tasks and decisions go with it, those of others don't; its runs stay."""
    kept = an_actor(user.id)
    await records.add_actor(kept)
    made: dict[str, list[Any]] = {}
    for owner in (actor, kept):
        version = ActorVersion(actor_id=owner.id, version_number="0.1", source_type="SOURCE_FILES", source={})
        task = ActorTask(
            id=new_id(), actor_id=owner.id, user_id=user.id, name=new_id(), created_at=START, modified_at=START
        )
        await records.put_version(version)
        await records.add_task(task)
        await records.add_decisions([a_decision(f"pool.{owner.id}", actor_id=owner.id)])
        build = await records.add_build(a_build(owner))
        made[owner.id] = [version, task, build, await add_run(records, a_run(user.id, actor_id=owner.id))]

    await records.delete_actor(actor.id)
    await records.delete_actor(actor.id)

    for owner, remains in ((actor, False), (kept, True)):
        version, task, build, run = made[owner.id]
        assert (await records.actor(owner.id) == owner) == remains
        assert (await records.actor_version(owner.id, "0.1") == version) == remains
        assert (await records.task(task.id) == task) == remains
        assert (await records.build(build.id) == build) == remains
        assert bool((await records.list_decisions(f"pool.{owner.id}", Page())).items) == remains
        assert await records.run(run.id) == run
    # Its name is free again.
    await records.add_actor(an_actor(user.id, name=actor.name))


async def test_deleting_a_build_leaves_its_actor(records: SqlRecords, actor: Actor):
    """The tag that points to it is the caller's to move; deleting twice is fine."""
    build = await records.add_build(a_build(actor))
    tag = TaggedBuild(build_id=build.id, build_number=build.build_number, finished_at=START)
    tagged = await records.replace_actor(replace(actor, tagged_builds={"latest": tag}))
    await records.delete_build(build.id)
    await records.delete_build(build.id)
    assert await records.build(build.id) is None
    assert await records.actor(actor.id) == tagged
