"""What the API writes when a restart is asked for, and whom it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.core.lifecycle import RunStatus
from gateway.core.model import RestartKind
from gateway.state.ports import Changed


@pytest.fixture
async def run(api, bob) -> Any:
    """A run of bob's that is RUNNING, as far as the records say."""
    actor = await bob.built_actor()
    run = await bob.post(f"/actors/{actor['id']}/runs")
    await api.supervise(run, status=RunStatus.RUNNING)
    return run


async def wish_of(api, run: Any) -> Any:
    stored = await api.services.state.records.run(run["id"])
    return stored.restart_wish


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        pytest.param("/actor-runs/{id}/reboot", RestartKind.REBOOT, id="reboot"),
        pytest.param("/actors/{actId}/runs/{id}/reboot", RestartKind.REBOOT, id="reboot, under its Actor"),
        pytest.param("/actors/{actId}/runs/last/reboot", RestartKind.REBOOT, id="reboot of the last run"),
        pytest.param("/greenroom/runs/{id}/migrate", RestartKind.MIGRATION, id="migrate"),
    ],
)
async def test_the_wish_is_on_record_and_told(api, bob, run, path, kind):
    """Answered at once with the run, which is RUNNING as before; asked again, nothing changes but that it is told."""
    async with api.services.state.signals.watch_changes() as changes:
        shown = await bob.post(path.format(**run), 200)
        assert (shown["id"], shown["status"]) == (run["id"], "RUNNING")
        wish = await wish_of(api, run)
        assert (wish.kind, wish.requested_at) == (kind, api.clock.now())
        api.clock.pass_by(seconds=5)
        await bob.post(path.format(**run), 200)
        assert await wish_of(api, run) == wish
        told = [await anext(changes), await anext(changes)]
    assert told == [Changed(kind="run", id=run["id"])] * 2


async def test_a_reboot_amid_a_migration_is_its_end(api, bob, run):
    """As the JavaScript SDK does it when it hears of one: 200, and one restart for both."""
    await bob.post(f"/greenroom/runs/{run['id']}/migrate", 200)
    itself = await api.run_itself(run)
    await itself.post(f"/actor-runs/{run['id']}/reboot", 200, content=b"")
    assert (await wish_of(api, run)).kind is RestartKind.MIGRATION_NOW


@pytest.mark.parametrize("path", ["/actor-runs/{id}/reboot", "/greenroom/runs/{id}/migrate"], ids=["reboot", "migrate"])
@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (RunStatus.READY, (409, "run-not-running")),
        (RunStatus.ABORTING, (409, "run-not-running")),
        (RunStatus.TIMING_OUT, (409, "run-not-running")),
        (RunStatus.SUCCEEDED, (403, "job-finished")),
        (RunStatus.TIMED_OUT, (403, "job-finished")),
    ],
)
async def test_only_a_running_run_can_be_restarted(api, bob, run, path, status, expected):
    """The refusal names the status, and for a finished one has the words that clients look for; nothing is written."""
    await api.supervise(run, status=status)
    error = await bob.post(path.format(**run), expected[0])
    assert error["type"] == expected[1]
    assert str(status) in error["message"]
    assert ("already finished" in error["message"]) is (expected[0] == 403)
    assert await wish_of(api, run) is None


async def test_who_may_have_a_run_migrated(api, bob, eve):
    """Its owner, and the administrator for anybody; not another user, nor the run itself."""
    actor = await eve.built_actor()
    run = await eve.post(f"/actors/{actor['id']}/runs")
    await api.supervise(run, status=RunStatus.RUNNING)
    path = f"/greenroom/runs/{run['id']}/migrate"
    itself = await api.run_itself(run)
    assert (await itself.post(path, 403))["type"] == "insufficient-permissions"
    assert await wish_of(api, run) is None
    assert (await bob.post(path, 200))["id"] == run["id"]
    others = await bob.built_actor("others")
    foreign = await bob.post(f"/actors/{others['id']}/runs")
    await api.supervise(foreign, status=RunStatus.RUNNING)
    for name in (f"/greenroom/runs/{foreign['id']}/migrate", f"/actor-runs/{foreign['id']}/reboot"):
        assert (await eve.post(name, 404))["type"] == "record-not-found"
    assert await wish_of(api, foreign) is None


async def test_a_standby_run_is_not_migrated(api, bob, run):
    """The message says what to do instead; it can be rebooted."""
    await api.supervise(run, pool_id="some-pool")
    error = await bob.post(f"/greenroom/runs/{run['id']}/migrate", 400)
    assert error["type"] == "standby-run-not-migrated"
    await bob.post(f"/actor-runs/{run['id']}/reboot", 200)
