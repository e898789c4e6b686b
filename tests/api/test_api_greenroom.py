"""Greenroom's own additions: pushing a folder, looking at pools and reading the autoscaler's reasons."""

from __future__ import annotations

import gzip
import io
import tarfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.actor_files.snapshot import pack_folder
from gateway.core.demand import DemandReport, PoolDemand, RunUse
from gateway.core.lifecycle import Readiness
from gateway.core.model import DecisionRecord
from gateway.core.standby import PoolKey
from gateway.state.ports import RunRoute

GZIP = {"Content-Type": "application/gzip"}


@pytest.fixture
def archive(tmp_path: Path) -> bytes:
    """An Actor's folder, packed as ``greenroom push`` does."""
    folder = tmp_path / "actor"
    (folder / ".actor").mkdir(parents=True)
    (folder / ".actor" / "actor.json").write_text(
        '{"actorSpecification": 1, "name": "pushed", "version": "0.3", "usesStandbyMode": true}'
    )
    (folder / "main.py").write_text("print('hello')\n")
    (folder / "Dockerfile").write_text('FROM python:3.12\nCOPY . ./\nCMD ["python", "main.py"]\n')
    return pack_folder(folder).archive


async def test_push(bob: Any, archive: bytes) -> None:
    """A pushed folder is an Actor with a build that can be run and stands by; pushed again it is the same build."""
    pushed = await bob.post("/greenroom/push", content=archive, headers=GZIP)
    assert pushed["actor"]["name"] == "pushed"
    assert pushed["build"]["status"] == "SUCCEEDED"
    assert pushed["build"]["meta"]["origin"] == "CLI"
    actor = await bob.get("/actors/pushed")
    assert actor["standbyUrl"] == "http://bob--pushed.localhost:8010"
    assert actor["taggedBuilds"]["latest"]["buildId"] == pushed["build"]["id"]
    again = await bob.post("/greenroom/push", content=archive, headers=GZIP)
    assert again["build"]["id"] == pushed["build"]["id"]
    await bob.post("/actors/pushed/runs")


async def test_a_pushed_version_can_be_changed_and_built(bob: Any, archive: bytes) -> None:
    """The version of a pushed folder has its source also after its other fields were changed by the API."""
    await bob.post("/greenroom/push", content=archive, headers=GZIP)
    version = await bob.get("/actors/pushed/versions/0.3")
    await bob.put("/actors/pushed/versions/0.3", json={**version, "buildTag": "beta"})
    build = await bob.post("/actors/pushed/builds?version=0.3&waitForFinish=30")
    assert build["status"] == "SUCCEEDED"


def _tar(name: str, kind: bytes = tarfile.REGTYPE) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.type = kind
        member.linkname = "/etc/passwd"
        tar.addfile(member)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "headers", "status", "kind"),
    [
        pytest.param(b"", GZIP, 400, "invalid-request", id="nothing"),
        pytest.param(b"no archive", GZIP, 400, "invalid-request", id="no gzip"),
        pytest.param(gzip.compress(b"no tar"), GZIP, 400, "invalid-request", id="no tar"),
        pytest.param(_tar("../evil"), GZIP, 400, "invalid-request", id="leaves its folder"),
        pytest.param(_tar("link", tarfile.SYMTYPE), GZIP, 400, "invalid-request", id="a link"),
        pytest.param(_tar("main.py"), GZIP, 400, "invalid-actor-definition", id="no Actor in it"),
        pytest.param(b"x", {"Content-Type": "application/json"}, 415, "invalid-content-type-header", id="no archive"),
    ],
)
async def test_bad_archives(bob: Any, content: bytes, headers: dict[str, str], status: int, kind: str) -> None:
    """What is no source archive is told so, and no Actor is made."""
    assert (await bob.post("/greenroom/push", status, content=content, headers=headers))["type"] == kind
    assert (await bob.get("/actors"))["total"] == 0


async def test_decisions(api: Any, bob: Any) -> None:
    """The autoscaler's reasons for a pool are for the user whose runs the pool has."""
    actor = await bob.built_actor("shared", isPublic=True)
    pool = PoolKey(target_id=actor["id"], user_id=api.eve.user.id)
    await api.services.state.records.add_decisions(
        [
            DecisionRecord(
                id="d",
                pool_id=pool.id,
                actor_id=actor["id"],
                at=api.clock.now(),
                wanted_runs=4,
                present_runs=1,
                reasons=("31 requests at a target of 10",),
                inputs={"in_flight": 31},
                decision={"start": 3},
            )
        ]
    )
    shown = await api.eve.get(f"/greenroom/pools/{pool.id}/decisions")
    assert shown["items"] == [
        {
            "id": "d",
            "poolId": pool.id,
            "actorId": actor["id"],
            "at": "2026-03-04T05:06:07.890Z",
            "wantedRuns": 4,
            "presentRuns": 1,
            "reasons": ["31 requests at a target of 10"],
            "decision": {"start": 3},
            "inputs": {"in_flight": 31},
        }
    ]
    await bob.get(f"/greenroom/pools/{pool.id}/decisions", 404)
    await bob.get("/greenroom/pools/nonsense/decisions", 404)


async def test_decisions_come_in_pages_from_either_end(api: Any, bob: Any) -> None:
    """The oldest first, with ``desc`` the newest, and no more than are asked for."""
    actor = await bob.built_actor("paged")
    pool = PoolKey(target_id=actor["id"], user_id=bob.user.id)
    await api.services.state.records.add_decisions(
        [
            DecisionRecord(
                id=f"d{number}",
                pool_id=pool.id,
                actor_id=actor["id"],
                at=api.clock.now() + timedelta(seconds=number),
                wanted_runs=number,
                present_runs=0,
                reasons=(),
            )
            for number in range(5)
        ]
    )
    path = f"/greenroom/pools/{pool.id}/decisions"
    assert [one["id"] for one in (await bob.get(path))["items"]] == ["d0", "d1", "d2", "d3", "d4"]
    last = await bob.get(f"{path}?desc=1&limit=2&offset=1")
    assert ([one["id"] for one in last["items"]], last["total"], last["count"]) == (["d3", "d2"], 5, 2)
    assert (await bob.get(f"{path}?limit=-1", 400))["type"] == "invalid-request"
    (shown,) = (await bob.get("/greenroom/actors/paged/pools"))["items"]
    assert (shown["decisions"], shown["lastDecision"]["id"]) == (5, "d4")


async def test_pools_of_an_actor(api: Any, bob: Any) -> None:
    """A sleeping Actor has the pool that the caller's next request would be served by; what runs in it is shown."""
    actor = await bob.built_actor("pooled", isPublic=True, actorStandby={"isEnabled": True, "idleTimeoutSecs": 60})
    own, others = (PoolKey(target_id=actor["id"], user_id=caller.user.id) for caller in (bob, api.eve))
    (asleep,) = (await bob.get("/greenroom/actors/pooled/pools"))["items"]
    assert asleep == {
        "id": own.id,
        "actorId": actor["id"],
        "userId": bob.user.id,
        "summary": "Asleep: the next request starts a run.",
        "inFlight": 0,
        "waiting": 0,
        "runs": [],
        "settings": {
            "desiredRequestsPerActorRun": 3,
            "maxRequestsPerActorRun": 4,
            "idleTimeoutSecs": 60,
            "freezeAfterSecs": None,
            "minRuns": 0,
            "maxRuns": None,
        },
        "quarantine": None,
        "decisions": 0,
        "lastDecision": None,
    }
    signals = api.services.state.signals
    for pool, run_id in ((own, "mine"), (others, "hers")):
        await signals.put_route(
            RunRoute(
                run_id=run_id,
                actor_id=actor["id"],
                user_id=pool.user_id,
                live_view_label=run_id,
                readiness=Readiness.SERVING,
                pool=pool,
            )
        )
    use = RunUse(in_flight=2, idle_secs=0.0)
    report = DemandReport(gateway_id="g", routes_seen=2, pools={own: PoolDemand(in_flight=2)}, runs={"mine": use})
    await signals.report_demand(report, ttl_secs=60)
    for caller, run_id, in_flight in ((bob, "mine", 2), (api.eve, "hers", 0)):
        (shown,) = (await caller.get("/greenroom/actors/bob~pooled/pools"))["items"]
        assert [run["id"] for run in shown["runs"]] == [run_id]
        assert shown["inFlight"] == in_flight


async def test_who_may_not_know_of_an_actor_does_not_hear_of_its_pools(api: Any, bob: Any) -> None:
    """A private Actor and one that is not there look the same; a shared Actor's runs are its owner's alone."""
    await bob.built_actor("private")
    for name in ("bob~private", "bob~nothing", "nonsense"):
        assert (await api.eve.get(f"/greenroom/actors/{name}/pools", 404))["type"] == "record-not-found"
    await bob.built_actor("shared", isPublic=True, actorStandby={"isEnabled": True, "public": True})
    assert (await api.eve.get("/greenroom/actors/bob~shared/pools"))["items"] == []
    assert len((await bob.get("/greenroom/actors/shared/pools"))["items"]) == 1
    limited = await api.caller(bob.user, frozenset({"actors:read"}))
    assert (await limited.get("/greenroom/actors/shared/pools", 403))["type"] == "insufficient-permissions"
