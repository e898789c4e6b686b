"""Two users on one server: what is private stays apart, what is public runs for each caller by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from journeys.greenroom import Greenroom, error_of

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

PERSONS = ("alice", "bobby")


@dataclass(frozen=True)
class Person:
    """A user with an Actor ``private`` that has run once, as a standby run and as a batch run."""

    name: str
    token: str
    actor: dict[str, Any]
    run_id: str
    batch_run_id: str


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def greenroom(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Greenroom]:
    """One server that lets the Actors of all its users run."""
    async with Greenroom(tmp_path_factory.mktemp("two-users") / "data", arguments=("--trust-users",)) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def persons(greenroom: Greenroom) -> dict[str, Person]:
    """Both users, each with what the other must not find."""
    made = {}
    for name in PERSONS:
        token = await greenroom.user(name)
        actor = await greenroom.probe("private", token=token)
        answer = await greenroom.call("private", "/count", token=token, user=name)
        batch = await greenroom.data_of("POST", f"/actors/{actor['id']}/runs", token=token)
        made[name] = Person(name, token, actor, answer.json()["runId"], batch["id"])
    return made


@pytest.mark.parametrize(("name", "other"), [PERSONS, PERSONS[::-1]])
async def test_a_token_neither_reaches_nor_wakes_the_others_private_actor(
    greenroom: Greenroom, persons: dict[str, Person], name: str, other: str
) -> None:
    """By name, by id and by the path form: the 404 of a host that does not exist, and no run of anybody's."""
    mine, theirs = persons[name], persons[other]
    asleep = await greenroom.probe("asleep", token=theirs.token)
    label = f"{other}--asleep"
    bearer = {"Authorization": f"Bearer {mine.token}"}
    port = greenroom.port
    answers = [
        await greenroom.call("asleep", token=mine.token, user=other),
        await greenroom.at(f"{asleep['id']}.localhost:{port}", headers=bearer),
        await greenroom.at(f"127.0.0.1:{port}", f"/standby/{label}/", headers=bearer),
        await greenroom.at(f"{label}.localhost:{port}", f"/?token={mine.token}"),
        await greenroom.call("no-such-actor", token=mine.token, user=other),
    ]
    assert {error_of(answer) for answer in answers} == {(404, "record-not-found")}
    assert len({answer.content for answer in answers}) == 1
    assert await greenroom.runs_of(asleep, token=theirs.token) == []
    assert asleep["id"] not in {run["actId"] for run in await greenroom.runs(token=mine.token)}


@pytest.mark.parametrize(("name", "other"), [PERSONS, PERSONS[::-1]])
async def test_nothing_of_the_other_is_listed_or_found_in_the_api(
    greenroom: Greenroom, persons: dict[str, Person], name: str, other: str
) -> None:
    """Actors, versions, builds, runs, logs: 404 to read, change, start, abort or delete, and in no list."""
    mine, theirs = persons[name], persons[other]
    build_id = theirs.actor["taggedBuilds"]["latest"]["buildId"]
    actor = f"/actors/{theirs.actor['id']}"
    calls = [
        ("GET", actor),
        ("GET", f"/actors/{other}~private"),
        ("PUT", actor),
        ("DELETE", actor),
        ("POST", f"{actor}/runs"),
        ("GET", f"{actor}/runs"),
        ("GET", f"{actor}/runs/last"),
        ("GET", f"{actor}/versions"),
        ("GET", f"{actor}/versions/0.1"),
        ("GET", f"{actor}/versions/0.1/env-vars"),
        ("GET", f"{actor}/builds"),
        ("POST", f"{actor}/builds?version=0.1"),
        ("GET", f"/actor-builds/{build_id}"),
        ("GET", f"/logs/{build_id}"),
        *(
            (method, f"/{path}")
            for run_id in (theirs.run_id, theirs.batch_run_id)
            for method, path in (
                ("GET", f"actor-runs/{run_id}"),
                ("PUT", f"actor-runs/{run_id}"),
                ("DELETE", f"actor-runs/{run_id}"),
                ("POST", f"actor-runs/{run_id}/abort"),
                ("GET", f"actor-runs/{run_id}/log"),
                ("GET", f"logs/{run_id}"),
            )
        ),
        ("GET", f"/greenroom/pools/{theirs.actor['id']}.{theirs.actor['userId']}/decisions"),
    ]
    statuses = {}
    for method, path in calls:
        body = {"json": {}} if method == "PUT" else {}
        statuses[method, path] = (await greenroom.api(method, path, token=mine.token, **body)).status_code
    assert statuses == dict.fromkeys(statuses, 404)
    lists = [
        await greenroom.data_of("GET", path, token=mine.token) for path in ("/actors", "/actor-runs", "/actor-builds")
    ]
    for found in lists:
        for id_ in (theirs.actor["id"], theirs.run_id, theirs.batch_run_id, build_id):
            assert id_ not in str(found)
    assert (await greenroom.run(theirs.run_id, token=theirs.token))["status"] == "RUNNING"


async def test_a_public_actor_in_single_tenancy_never_mixes_its_callers(
    greenroom: Greenroom, persons: dict[str, Person]
) -> None:
    """
    Forty requests of two users at once: each caller's are served by runs of his own, which see nobody else's, and which
    only he sees; the owner of the Actor gets no run out of it.
    """
    alice, bobby = persons["alice"], persons["bobby"]
    carol = await greenroom.user("carol")
    standby = {"desiredRequestsPerActorRun": 2, "maxRequestsPerActorRun": 3}
    actor = await greenroom.probe("for-all", standby, token=carol)
    await greenroom.data_of("PUT", f"/actors/{actor['id']}", token=carol, json={"isPublic": True})

    async def ask(person: Person, number: int) -> tuple[str, str, str]:
        answer = await greenroom.call("for-all", f"/seen?{person.name}{number}", token=person.token, user="carol")
        assert answer.status_code == 200, answer.text
        assert person.token not in answer.text
        return person.name, answer.json()["runId"], answer.json()["target"]

    served = await asyncio.gather(*(ask(person, number) for number in range(20) for person in (alice, bobby)))
    assert all(target.startswith(f"/seen?{name}") for name, _, target in served)
    runs = {person.name: {run for name, run, _ in served if name == person.name} for person in (alice, bobby)}
    assert not runs["alice"] & runs["bobby"]
    for person in (alice, bobby):
        found = await greenroom.runs_of(actor, token=person.token)
        assert runs[person.name] <= {run["id"] for run in found}
        assert {run["userId"] for run in found} == {person.actor["userId"]}
        env = (await greenroom.call("for-all", "/env", token=person.token, user="carol")).json()["env"]
        assert env["APIFY_USER_ID"] == person.actor["userId"]
        counts = [
            (await greenroom.api("GET", f"/actor-runs/{run}", token=person.token)).status_code for run in runs["alice"]
        ]
        assert set(counts) == ({200} if person is alice else {404})
    assert await greenroom.runs_of(actor, token=carol) == []


async def test_making_an_actor_private_again_shuts_others_out(greenroom: Greenroom, persons: dict[str, Person]) -> None:
    """From the next request on, although a run of theirs is still warm."""
    alice, bobby = persons["alice"], persons["bobby"]
    actor = await greenroom.probe("for-a-while", token=alice.token)
    await greenroom.data_of("PUT", f"/actors/{actor['id']}", token=alice.token, json={"isPublic": True})
    assert (await greenroom.call("for-a-while", token=bobby.token, user="alice")).status_code == 200
    await greenroom.data_of("PUT", f"/actors/{actor['id']}", token=alice.token, json={"isPublic": False})
    shut = await greenroom.call("for-a-while", token=bobby.token, user="alice")
    assert error_of(shut) == (404, "record-not-found")
    assert (await greenroom.call("for-a-while", token=alice.token, user="alice")).status_code == 200


async def test_without_trust_the_actors_of_others_do_not_run_as_processes(tmp_path: Path) -> None:
    """503 that names the flag; a run by the API ends FAILED for the same reason. The administrator's own run."""
    async with Greenroom(tmp_path / "data") as greenroom:
        token = await greenroom.user("stranger")
        actor = await greenroom.probe("strange", token=token)
        refused = await greenroom.call("strange", token=token, user="stranger")
        assert error_of(refused) == (503, "standby-run-failed")
        assert "--trust-users" in refused.json()["error"]["message"]
        run = await greenroom.data_of("POST", f"/actors/{actor['id']}/runs?waitForFinish=20", token=token)
        assert run["status"] == "FAILED"
        assert "--trust-users" in run["statusMessage"]
        await greenroom.probe("own")
        assert (await greenroom.call("own")).status_code == 200
