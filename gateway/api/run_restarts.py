"""
Restarts in place: reboot, which starts a run's program again at once, and migrate, which gives it some time before.

This room only writes the wish and signals it; the supervisor acts on it. The run keeps its id, storages and timeout.
"""

from __future__ import annotations

from functools import partial

from starlette.responses import Response

from gateway.api.access import run_of_path
from gateway.api.call import Call, Endpoint, answer
from gateway.api.errors import JobFinished, RunNotRunning, StandbyRunNotMigrated
from gateway.api.views import run_view
from gateway.core.errors import InsufficientPermissions, RecordNotFound
from gateway.core.lifecycle import RunStatus
from gateway.core.model import RestartKind, RestartWish, Run
from gateway.core.run_changes import restart_wished
from gateway.state.changes import change_run


async def reboot_run(call: Call) -> Response:
    """
    Ask for its program to be started again at once; answered before that has happened, and joined where a restart is
    under way. Whatever body comes is not looked at: clients send empty forms.
    """
    return await _restart(call, await run_of_path(call), RestartKind.REBOOT)


async def migrate_run(call: Call) -> Response:
    """
    ``POST /v2/greenroom/runs/{run}/migrate``: as if its machine were to be cleared. The run hears ``migrating``, and is
    started again when it ends, asks for a reboot, or its time (``migration_grace_secs``) is over; with exit code 0
    before that it has succeeded. For its owner and administrators.
    """
    run = await _run_to_migrate(call)
    if run.pool_id is not None and not run.status.is_terminal:
        raise StandbyRunNotMigrated
    return await _restart(call, run, RestartKind.MIGRATION)


async def _run_to_migrate(call: Call) -> Run:
    if call.principal.run_id is not None:
        raise InsufficientPermissions("A run can't have runs migrated; it may ask for its own reboot.")
    run = await call.records.run(call.path("run"))
    if run is None or not (run.user_id == call.principal.user_id or call.principal.is_admin):
        raise RecordNotFound("Actor run")
    return run


async def _restart(call: Call, run: Run, kind: RestartKind) -> Response:
    wish = RestartWish(kind=kind, requested_at=call.services.now())
    changed = await change_run(call.records, run.id, partial(restart_wished, wish=wish))
    if changed.status.is_terminal:
        raise JobFinished(changed.status)
    if changed.status is not RunStatus.RUNNING:
        raise RunNotRunning(changed.status)
    # Also when nothing changed: should the first signal have been lost, this one may not be.
    await call.tell("run", run.id)
    return answer(run_view(changed, call.services.urls))


ENDPOINTS = (
    Endpoint(
        method="POST",
        path="/actors/{actor}/runs/{run}/reboot",
        handler=reboot_run,
        scope="runs:write",
        own_run=True,
    ),
    Endpoint(method="POST", path="/actor-runs/{run}/reboot", handler=reboot_run, scope="runs:write", own_run=True),
    Endpoint(method="POST", path="/greenroom/runs/{run}/migrate", handler=migrate_run, scope="runs:write"),
)
