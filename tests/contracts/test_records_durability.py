"""What was answered is there, whoever is cancelled, killed or at it at the same time."""

from __future__ import annotations

import asyncio
import sys

import pytest
from contracts.given_records import a_run, a_token, a_user, add_run, storages_of

from gateway.core.model import (
    User,
)
from gateway.state.ports import StateUnavailable
from gateway.state.records import SqlRecords, open_records


async def test_a_cancelled_write_is_whole_or_not_at_all(records: SqlRecords, user: User, records_url: str):
    """Wherever a caller goes away, a run has its token and storages or is not there, and the next caller is served."""
    for steps in range(0, 60, 3):
        run = a_run(user.id)
        token = a_token(user.id, run_id=run.id)
        async with open_records(records_url) as others:  # whose closing waits for what has begun
            async with asyncio.TaskGroup() as group:
                write = group.create_task(others.add_run(run, token, storages_of(run)))
                for _ in range(steps):
                    await asyncio.sleep(0)
                write.cancel()
            await add_run(others, a_run(user.id))
        is_there = await records.run(run.id) is not None
        assert (await records.token_by_hash(token.token_hash) is not None) == is_there
        for storage in storages_of(run):
            assert (await records.storages.storage(storage.kind, storage.id) is not None) == is_there


async def test_cancelled_callers_keep_no_turn(records: SqlRecords, user: User):
    """Any number of readers and writers that go away leave room for those who come after."""
    async with asyncio.TaskGroup() as group:
        for i in range(40):
            calls = (records.user(user.id), records.add_user(a_user()))
            going = [group.create_task(call) for call in calls]
            for _ in range(i % 7):
                await asyncio.sleep(0)
            for call in going:
                call.cancel()
    async with asyncio.timeout(10):
        answers = await asyncio.gather(*(records.user(user.id) for _ in range(20)))
    assert answers == [user] * 20


CHILD = """
import asyncio, sys
from datetime import UTC, datetime
from gateway.core.model import User
from gateway.state.records import open_records

async def main(url, prefix, number, wait):
    async with open_records(url) as records:
        for i in range(int(number)):
            name = f"{prefix}{i:03}"
            await records.add_user(User(id=name, username=name, is_admin=False, created_at=datetime.now(UTC)))
        print("ok", flush=True)
        if wait == "wait":
            await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


async def child(url: str, prefix: str, *, number: int, wait: bool = False) -> asyncio.subprocess.Process:
    """A process that adds *number* users to the records at *url* and says ok."""
    words = ("-c", CHILD, url, prefix, str(number), "wait" if wait else "end")
    return await asyncio.create_subprocess_exec(sys.executable, *words, stdout=asyncio.subprocess.PIPE)


async def test_what_was_answered_survives_a_kill(records_url: str):
    """A process is killed as soon as it was told that its write is done: the record is there."""
    process = await child(records_url, "before-the-kill-", number=3, wait=True)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ok\n"
    process.kill()
    await process.wait()
    async with open_records(records_url) as records:
        assert [user.id for user in await records.list_users()] == [f"before-the-kill-{i:03}" for i in range(3)]


async def test_processes_start_and_write_at_the_same_time(records_url: str):
    """Of processes that find no database, one makes it and all use it; none of their writes fails or is lost."""
    processes = [await child(records_url, prefix, number=40) for prefix in ("a", "b", "c")]
    async with open_records(records_url) as records:
        for i in range(40):
            await records.add_user(a_user(id=f"d{i:03}"))
        said = [(await process.communicate())[0] for process in processes]
        assert (said, [process.returncode for process in processes]) == ([b"ok\n"] * 3, [0] * 3)
        ids = {user.id for user in await records.list_users()}
    assert ids == {f"{prefix}{i:03}" for prefix in "abcd" for i in range(40)}


async def test_records_open_again(records_url: str):
    """Opening a second time changes nothing, also while another has them open."""
    user = a_user()
    async with open_records(records_url) as records:
        await records.add_user(user)
        async with open_records(records_url) as second:
            assert await second.user(user.id) == user
            await second.add_user(a_user())
        assert len(await records.list_users()) == 2
    async with open_records(records_url) as records:
        assert await records.user(user.id) == user


async def test_errors_of_those_who_use_records_are_theirs(records_url: str):
    """What is raised while records are open leaves as it is, a cancellation included, and they are closed."""
    with pytest.raises(ZeroDivisionError):
        async with open_records(records_url):
            raise ZeroDivisionError
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1), open_records(records_url) as records:
            await asyncio.Event().wait()
    with pytest.raises(StateUnavailable, match="closed"):
        await records.list_users()


async def test_closing_waits_for_what_is_under_way(records_url: str):
    """A write that its caller has given up is done before the records are closed."""
    user = a_user()
    async with open_records(records_url) as records:
        async with asyncio.TaskGroup() as group:
            write = group.create_task(records.add_user(user))
            await asyncio.sleep(0)  # it begins, as nobody else has the turn
            write.cancel()
        assert write.cancelled()
    async with open_records(records_url) as records:
        assert await records.user(user.id) == user
