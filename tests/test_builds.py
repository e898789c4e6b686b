"""Builds, on real records, blobs and signals."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from obstore.store import LocalStore

from gateway.actor_files.snapshot import Snapshot, open_archive, pack_source_files
from gateway.builds import Builder
from gateway.core.errors import Conflict, DefinitionError, InvalidRequest
from gateway.core.lifecycle import RunStatus
from gateway.core.model import Actor, ActorVersion, Build, EnvVar, Origin, Page, TaggedBuild, User, snapshot_key
from gateway.live_logs import Logs
from gateway.secret_box import SecretBox
from gateway.state.blobs import ObjectBlobs, open_blobs
from gateway.state.ports import Changed, State
from gateway.state.records import open_records
from gateway.state.signals_memory import MemorySignals

START = datetime(2026, 1, 2, tzinfo=UTC)
OWNER = User(id="u" * 17, username="local", is_admin=True, created_at=START)
BOX = SecretBox(b"key")


@dataclass(frozen=True, slots=True)
class Bench:
    """A builder and what it works on."""

    builder: Builder
    state: State
    logs: Logs

    async def log(self, build: Build) -> str:
        return b"".join([chunk async for chunk in self.logs.read(build.id)]).decode()

    async def builds(self) -> int:
        return (await self.state.records.list_builds(None, None, Page())).total


def clock():
    """One second more at each look."""
    seconds = count()
    return lambda: START + timedelta(seconds=next(seconds))


def ids():
    numbers = count(1)
    return lambda: f"{next(numbers):017d}"


@pytest.fixture
async def bench(tmp_path) -> AsyncIterator[Bench]:
    async with open_records(f"sqlite+aiosqlite:///{tmp_path / 'records.db'}") as records:
        state = State(
            records=records,
            blobs=open_blobs(tmp_path / "blobs"),
            signals=MemorySignals(),
            storages=records.storages,
        )
        await records.add_user(OWNER)
        logs = Logs(tmp_path, state.blobs)
        yield Bench(Builder(state, logs, BOX, now=clock(), new_id=ids()), state, logs)
        await state.signals.close()


def source_files(actor_json=None, **others: str):
    """The sourceFiles of an Actor that can be started, with *actor_json* over its definition."""
    definition = {"actorSpecification": 1, "name": "hello", "version": "0.1", **(actor_json or {})}
    files = {".actor/actor.json": json.dumps(definition), "src/__main__.py": "print('hello')", **others}
    return [{"name": name, "format": "TEXT", "content": content} for name, content in files.items()]


def snapshot(actor_json=None, **others: str) -> Snapshot:
    return pack_source_files(source_files(actor_json, **others))


async def register(bench: Bench, actor_json=None, **others: str) -> tuple[Actor, Build]:
    return await bench.builder.register(OWNER, snapshot(actor_json, **others), origin=Origin.CLI)


async def create(bench: Bench, actor: Actor, version: ActorVersion, tag: str | None = None) -> Build:
    return await bench.builder.create(actor, version, tag=tag, origin=Origin.API, options={"a": 1}, meta={"b": 2})


def version_of(actor: Actor, files, **fields) -> ActorVersion:
    given = {"version_number": "0.1", "source_type": "SOURCE_FILES", "source": {"sourceFiles": files}, **fields}
    return ActorVersion(actor_id=actor.id, **given)


async def test_a_folder_becomes_an_actor_with_a_version_and_a_build(bench):
    """Everything that the files say is in the records, the source in the blobs, and the story in the log."""
    given = {
        "title": "Hello",
        "description": "Says it",
        "buildTag": "beta",
        "usesStandbyMode": True,
        "environmentVariables": {"A": "1", "PASSWORD": "@pw"},
        "somethingNew": 1,
    }
    packed = snapshot(given)
    actor, build = await bench.builder.register(OWNER, packed, origin=Origin.CLI)
    assert (actor.name, actor.title, actor.description) == ("hello", "Hello", "Says it")
    assert actor.user_id == OWNER.id
    assert actor.standby_from_file == {"isEnabled": True}
    assert actor.tagged_builds == {
        "beta": TaggedBuild(build_id=build.id, build_number="0.1.1", finished_at=build.finished_at)
    }
    assert (build.status, build.build_number, build.tag) == (RunStatus.SUCCEEDED, "0.1.1", "beta")
    assert (build.origin, build.snapshot) == (Origin.CLI, packed.sha256)
    assert build.definition["somethingNew"] == 1
    assert build.env_vars == (EnvVar(name="A", value="1"),)
    assert await bench.state.records.actor(actor.id) == actor
    assert await bench.state.records.build(build.id) == build
    version = await bench.state.records.actor_version(actor.id, "0.1")
    assert version is not None
    assert (version.source_type, version.source) == ("SOURCE_FILES", {"snapshot": packed.sha256})
    assert await bench.state.blobs.get(snapshot_key(packed.sha256)) == packed.archive
    log = await bench.log(build)
    assert "Source: 2 files" in log
    assert "Command: python3 -m src" in log
    assert "somethingNew is kept" in log
    assert "secret @pw is not set, so PASSWORD is left out" in log
    assert "Build 0.1.1 succeeded." in log
    assert not bench.logs.path(build.id).exists()


async def test_the_same_folder_again_is_recognised(bench):
    """Same files, same variables, tag in place: the same build, and nothing new."""
    first = await register(bench, {"environmentVariables": {"A": "1"}})
    assert await register(bench, {"environmentVariables": {"A": "1"}}) == first
    assert await bench.builds() == 1


@pytest.mark.parametrize(
    ("actor_json", "others"),
    [
        pytest.param({}, {"src/more.py": "1"}, id="a file"),
        pytest.param({"environmentVariables": {"A": "2"}}, {}, id="a variable"),
        pytest.param({"version": "0.2"}, {}, id="the version"),
        pytest.param({"buildTag": "beta"}, {}, id="the tag"),
    ],
)
async def test_a_changed_folder_is_built_anew(bench, actor_json, others):
    """Any change makes another build of the same Actor, and its tag points there."""
    actor, first = await register(bench, {"environmentVariables": {"A": "1"}})
    again, second = await register(bench, {"environmentVariables": {"A": "1"}, **actor_json}, **others)
    assert again.id == actor.id
    assert second.id != first.id
    assert second.tag is not None
    assert again.tagged_builds[second.tag].build_id == second.id


async def test_a_moved_tag_is_set_right(bench):
    """If the tag was pointed elsewhere by the API, registering builds again and takes it back."""
    actor, first = await register(bench)
    await bench.state.records.replace_actor(replace(actor, tagged_builds={}))
    again, second = await register(bench)
    assert second.build_number == "0.1.2"
    assert again.tagged_builds["latest"].build_id == second.id != first.id


async def test_titles_that_are_set_stay_and_standby_follows_the_file(bench):
    """As with the platform's push."""
    actor, _ = await register(bench, {"usesStandbyMode": True})
    await bench.state.records.replace_actor(replace(actor, title="Copywriter's", standby_from_api={"minRuns": 1}))
    actor, _ = await register(bench, {"title": "File's", "description": "File's"})
    assert (actor.title, actor.description) == ("Copywriter's", "File's")
    assert (actor.standby_from_file, actor.standby_from_api) == (None, {"minRuns": 1})


async def test_variables_follow_the_file_and_secrets_stay(bench):
    """Plain variables are the file's; a secret that the API set is kept and used for ``@name``."""
    actor, _ = await register(bench, {"environmentVariables": {"A": "1", "B": "2"}})
    version = await bench.state.records.actor_version(actor.id, "0.1")
    assert version is not None
    secret = EnvVar(name="PASSWORD", value=BOX.seal("x"), is_secret=True)
    await bench.state.records.put_version(replace(version, env_vars=(*version.env_vars, secret)))
    _, build = await register(bench, {"environmentVariables": {"A": "3", "PASSWORD": "@pw"}})
    assert build.env_vars == (EnvVar(name="A", value="3"), secret)
    assert "is not set" not in await bench.log(build)
    _, build = await register(bench, {"title": "no variables in the file"})
    assert build.env_vars == (EnvVar(name="A", value="3"), secret)


@pytest.mark.parametrize(
    ("actor_json", "others", "message"),
    [
        pytest.param({"name": "no_dns"}, {}, "actor.json:1: name", id="broken definition"),
        pytest.param({}, {"Dockerfile": "FROM x\nCMD ['a']"}, "Dockerfile:2: CMD", id="broken command"),
    ],
)
async def test_a_broken_folder_leaves_nothing_behind(bench, actor_json, others, message):
    """The mistake is told before anything is stored."""
    with pytest.raises(DefinitionError) as caught:
        await register(bench, actor_json, **others)
    assert message in caught.value.message
    assert (await bench.state.records.list_actors(None, Page())).total == 0
    assert await bench.builds() == 0


async def test_many_registrations_at_once_make_one_actor(bench):
    """Whoever loses the race for the name updates what the winner made."""
    results = await asyncio.gather(*(register(bench, None, **{"n.txt": str(n)}) for n in range(5)))
    assert len({actor.id for actor, _ in results}) == 1
    assert {build.build_number for _, build in results} == {f"0.1.{n}" for n in range(1, 6)}
    actor = await bench.state.records.actor(results[0][0].id)
    assert actor is not None
    assert actor.tagged_builds["latest"].build_id in {build.id for _, build in results}


async def test_a_build_from_source_files(bench):
    """The API's files are packed, kept and built; options and meta are kept; another tag may be asked for."""
    actor, _ = await register(bench)
    files = source_files({"version": "9.9"}, **{"src/x.py": "1"})
    build = await create(bench, actor, version_of(actor, files), tag="canary")
    assert (build.status, build.build_number, build.tag) == (RunStatus.SUCCEEDED, "0.1.2", "canary")
    assert (build.options, build.meta) == ({"a": 1}, {"b": 2})
    assert build.snapshot == pack_source_files(files).sha256
    archive = await bench.state.blobs.get(snapshot_key(build.snapshot))
    assert archive is not None
    with open_archive(archive) as opened:
        assert opened["src/x.py"] == b"1"
    stored = await bench.state.records.actor(actor.id)
    assert stored is not None
    assert {tag: tagged.build_number for tag, tagged in stored.tagged_builds.items()} == {
        "latest": "0.1.1",
        "canary": "0.1.2",
    }


async def test_sources_without_a_definition_can_be_built(bench):
    """The API knows name and version already; a Dockerfile with a command is enough."""
    actor, _ = await register(bench)
    files = [{"name": "Dockerfile", "format": "TEXT", "content": 'FROM x\nCMD ["a"]'}]
    build = await create(bench, actor, version_of(actor, files))
    assert build.status is RunStatus.SUCCEEDED
    assert build.definition["dockerfile"] == 'FROM x\nCMD ["a"]'


@pytest.mark.parametrize(
    ("files", "message"),
    [
        pytest.param([], "nothing says how the Actor is started", id="no files"),
        pytest.param(source_files({"version": 1}), ".actor/actor.json:1: version", id="broken definition"),
    ],
)
async def test_a_broken_source_fails_the_build_and_moves_no_tag(bench, files, message):
    """Status, message and log tell the mistake; the tag stays where it was."""
    actor, _ = await register(bench)
    build = await create(bench, actor, version_of(actor, files))
    assert build.status is RunStatus.FAILED
    assert build.status_message is not None
    assert message in build.status_message
    assert build.finished_at is not None
    assert message in await bench.log(build)
    assert not bench.logs.path(build.id).exists()
    assert await bench.state.records.actor(actor.id) == actor


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        pytest.param({"source_type": "GIT_REPO", "source": {"gitRepoUrl": "x"}}, "gitRepoUrl: a URL", id="git"),
        pytest.param({"source_type": "TARBALL", "source": {"tarballUrl": "x"}}, "tarballUrl: a URL", id="tarball"),
        pytest.param({"source_type": "GITHUB_GIST", "source": {}}, "has no gitHubGistUrl", id="gist"),
        pytest.param({"source": {}}, "has no sourceFiles", id="no source"),
        pytest.param({"source": {"sourceFiles": {}}}, "is an array", id="no array"),
        pytest.param({"source": {"sourceFiles": [{"name": "../x"}]}}, "sourceFiles[0].name", id="bad name"),
    ],
)
async def test_sources_that_cannot_be_read(bench, fields, message):
    """The caller hears what to do instead, and no build is made."""
    actor, _ = await register(bench)
    with pytest.raises(InvalidRequest) as caught:
        await create(bench, actor, version_of(actor, [], **fields))
    assert message in caught.value.message
    assert await bench.builds() == 1


async def test_a_lost_snapshot_fails_the_build(bench):
    """A blob that somebody deleted is told as such."""
    actor, first = await register(bench)
    assert first.snapshot is not None
    await bench.state.blobs.delete(snapshot_key(first.snapshot))
    build = await create(bench, actor, version_of(actor, None, source={"snapshot": first.snapshot}))
    assert build.status is RunStatus.FAILED
    assert "push the Actor again" in (build.status_message or "")


async def test_secrets_stay_sealed_and_must_be_readable(bench):
    """A secret of this data folder is copied sealed; one of another is found at the build, not at the run."""
    actor, _ = await register(bench)
    good = EnvVar(name="GOOD", value=BOX.seal("x"), is_secret=True)
    build = await create(bench, actor, version_of(actor, source_files(), env_vars=(good,)))
    assert build.env_vars == (good,)
    bad = EnvVar(name="BAD", value=SecretBox(b"other").seal("x"), is_secret=True)
    build = await create(bench, actor, version_of(actor, source_files(), env_vars=(bad,)))
    assert build.status is RunStatus.FAILED
    assert "secret variable BAD" in (build.status_message or "")


async def test_others_hear_of_the_new_build(bench):
    """Whoever watches changes is told of the Actor once its tag points to the build."""
    actor, _ = await register(bench)
    async with bench.state.signals.watch_changes() as changes:
        build = await create(bench, actor, version_of(actor, source_files()))
        told = [await anext(changes) for _ in range(3)]
    assert told == [
        Changed(kind="build", id=build.id),  # it has begun
        Changed(kind="actor", id=actor.id),
        Changed(kind="build", id=build.id),
    ]
    stored = await bench.state.records.actor(actor.id)
    assert stored is not None
    assert stored.tagged_builds["latest"].build_id == build.id


async def test_a_tag_moves_also_when_the_actor_changes_meanwhile(bench):
    """The compare-and-set is tried again; neither change is lost."""
    actor, _ = await register(bench)

    async def rename() -> None:
        for number in range(10):
            current = await bench.state.records.actor(actor.id)
            assert current is not None
            with suppress(Conflict):  # it may lose to the tag, too
                await bench.state.records.replace_actor(replace(current, title=str(number)))

    async with asyncio.TaskGroup() as group:
        group.create_task(rename())
        building = group.create_task(create(bench, actor, version_of(actor, source_files())))
    built = building.result()
    stored = await bench.state.records.actor(actor.id)
    assert stored is not None
    assert stored.tagged_builds["latest"].build_id == built.id


async def test_whatever_a_failure_says_the_build_ends(bench):
    """Names in an archive and output of programs may hold half a character, or the character 0."""
    actor, _ = await register(bench)

    async def fetch(version: ActorVersion, say: object) -> Snapshot:
        raise InvalidRequest("The source has the link caf\udce9 to \0.")

    builder = Builder(bench.state, bench.logs, BOX, now=clock(), new_id=lambda: "b" * 17, fetch=fetch)
    version = version_of(actor, None, source_type="TARBALL", source={"tarballUrl": "https://example.com/a.tar"})
    build = await builder.create(actor, version, tag=None, origin=Origin.API, options={}, meta={})
    ended = await builder.maker.make(build)
    assert (ended.status, ended.status_message) == (RunStatus.FAILED, "The source has the link caf\ufffd to \ufffd.")
    assert await bench.state.records.build(build.id) == ended


async def test_a_build_whose_success_the_records_refuse(bench, monkeypatch):
    """It has failed, and says why."""
    actor, _ = await register(bench)

    async def refuse(*_: object) -> None:
        raise InvalidRequest("A text holds half a character.")

    monkeypatch.setattr(bench.state.records, "finish_build", refuse)
    build = await create(bench, actor, version_of(actor, source_files()))
    assert (build.status, build.status_message) == (RunStatus.FAILED, "A text holds half a character.")


class SlowBlobs(ObjectBlobs):
    """A folder of blobs in which sources can be asked for but never come."""

    def __init__(self, folder: Path) -> None:
        super().__init__(LocalStore(folder), folder=folder)
        self.asked = asyncio.Event()

    async def open(self, key: str, *, start: int = 0, end: int | None = None) -> AsyncIterator[bytes] | None:
        if key.startswith("sources/"):
            self.asked.set()
            await asyncio.Event().wait()
        return await super().open(key, start=start, end=end)


async def test_a_cancelled_build_ends_failed(bench, tmp_path):
    """A build never stays RUNNING because its caller went away."""
    actor, _ = await register(bench)
    slow = SlowBlobs(tmp_path / "blobs")
    builder = Builder(replace(bench.state, blobs=slow), bench.logs, BOX, now=clock(), new_id=lambda: "b" * 17)
    version = version_of(actor, source_files())
    async with asyncio.TaskGroup() as group:
        building = group.create_task(builder.create(actor, version, tag=None, origin=Origin.API, options={}, meta={}))
        await slow.asked.wait()
        building.cancel()
    build = await bench.state.records.build("b" * 17)
    assert build is not None
    assert (build.status, build.status_message) == (RunStatus.FAILED, "The build was interrupted.")
    assert "The build was interrupted." in await bench.log(build)


async def test_builds_of_a_killed_server_are_ended_truthfully(bench):
    """What was READY or RUNNING is FAILED afterwards, with its log so far; what has ended is left alone."""
    actor, done = await register(bench)
    for number, status in enumerate((RunStatus.READY, RunStatus.RUNNING)):
        left = replace(done, id=f"{number}" * 17, build_number="", status=status, finished_at=None, version=1)
        await bench.state.records.add_build(left)
    bench.logs.append("1" * 17, "so far")
    await bench.builder.recover()
    assert await bench.state.records.active_builds() == []
    for number in range(2):
        build = await bench.state.records.build(f"{number}" * 17)
        assert build is not None
        assert build.status is RunStatus.FAILED
        assert "Greenroom stopped" in await bench.log(build)
    assert "so far" in await bench.log(replace(done, id="1" * 17))
    assert await bench.state.records.build(done.id) == done
    assert await bench.state.records.actor(actor.id) == actor
