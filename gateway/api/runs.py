"""
Runs: list, get, wait, update, abort, delete.

This room only writes what is wanted (the wish to abort) and signals it; the supervisor acts on it.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial

from starlette.responses import Response

from gateway.api.access import run_of_path, statuses, visible_actor
from gateway.api.call import Call, Endpoint, answer, no_content
from gateway.api.errors import CannotRemoveRunningRun
from gateway.api.pagination import listing, page_of
from gateway.api.run_changes import run_update
from gateway.api.unnamed_blobs import delete_unnamed
from gateway.api.views import run_list_item, run_view
from gateway.api.waiting import awaited_run
from gateway.core.errors import RecordNotFound
from gateway.core.lifecycle import RunStatus
from gateway.core.load import load_stats
from gateway.core.model import AbortWish, StorageKind
from gateway.core.run_changes import aborting, lasted_stats
from gateway.new_run import storages_of
from gateway.state.changes import change_run
from gateway.state.ports import StateUnavailable


async def _listed(call: Call, actor_id: str | None) -> Response:
    page = page_of(call.query)
    found = await call.records.list_runs(
        user_id=call.principal.user_id,
        actor_id=actor_id,
        statuses=statuses(call),
        started_after=call.query.time("startedAfter"),
        started_before=call.query.time("startedBefore"),
        page=page,
    )
    return answer(listing([run_list_item(run) for run in found.items], page, found.total))


async def list_runs(call: Call) -> Response:
    """One's own runs, of all Actors."""
    return await _listed(call, None)


async def list_runs_of_actor(call: Call) -> Response:
    """One's own runs of one Actor."""
    return await _listed(call, (await visible_actor(call)).id)


async def get_run(call: Call) -> Response:
    """One run, waited for up to ``waitForFinish``; while it lives, its ``stats`` are those of this moment."""
    asked = await run_of_path(call)
    run = await awaited_run(call.records, call.signals, asked.id, call.query.wait_secs())
    if run.status is RunStatus.RUNNING:
        load = None
        with suppress(StateUnavailable):  # the run is what is asked for; how busy it is comes with it where it is known
            load = (await call.signals.loads()).get(run.id)
        run = replace(run, stats={**run.stats, **load_stats(load), **lasted_stats(run, call.services.now())})
    return answer(run_view(run, call.services.urls))


async def update_run(call: Call) -> Response:
    """Its status message, the last word about it, and who may see it; for its owner and the run itself."""
    run = await run_of_path(call)
    change = run_update(await call.json())
    changed = await change_run(call.records, run.id, change)
    if changed.version != run.version:
        await call.tell("run", run.id)
    return answer(run_view(changed, call.services.urls))


async def abort_run(call: Call) -> Response:
    """Ask for its end, at once or ``gracefully``; one that has ended is returned as it is."""
    run = await run_of_path(call)
    wish = AbortWish(gracefully=call.query.flag("gracefully"), requested_at=call.services.now())
    changed = await change_run(call.records, run.id, partial(aborting, wish=wish))
    if not changed.status.is_terminal:
        # Also when nothing changed: should the first signal have been lost, this one may not be.
        await call.tell("run", run.id)
    return answer(run_view(changed, call.services.urls))


async def delete_run(call: Call) -> Response:
    """A finished run with its log and all storages that were made with it, but for those that got a name since."""
    run = await run_of_path(call)
    if not run.status.is_terminal:
        raise CannotRemoveRunningRun
    # The run goes last: as long as it is there, what was cut off can be done again.
    for kind, storage_id in storages_of(run):
        await _delete_storage(call, kind, storage_id)
    await call.services.logs.delete(run.id)
    await call.records.delete_run(run.id)
    await call.tell("run", run.id)
    return no_content()


async def _delete_storage(call: Call, kind: StorageKind, storage_id: str) -> None:
    storage = await call.storages.storage(kind, storage_id)
    if storage is None or storage.name is not None:
        return
    with suppress(RecordNotFound):
        await delete_unnamed(call, *await call.storages.delete_storage(kind, storage_id))


_OF_ACTOR = "/actors/{actor}/runs"
_RUN_OF_ACTOR = "/actors/{actor}/runs/{run}"
_RUN = "/actor-runs/{run}"

ENDPOINTS = (
    Endpoint(method="GET", path=_OF_ACTOR, handler=list_runs_of_actor, scope="runs:read"),
    Endpoint(method="GET", path=_RUN_OF_ACTOR, handler=get_run, scope="runs:read", own_run=True),
    Endpoint(method="POST", path=f"{_RUN_OF_ACTOR}/abort", handler=abort_run, scope="runs:write", own_run=True),
    Endpoint(method="GET", path="/actor-runs", handler=list_runs, scope="runs:read"),
    Endpoint(method="GET", path=_RUN, handler=get_run, scope="runs:read", own_run=True, after_end=True),
    Endpoint(method="PUT", path=_RUN, handler=update_run, scope="runs:write", own_run=True, after_end=True),
    Endpoint(method="DELETE", path=_RUN, handler=delete_run, scope="runs:write"),
    Endpoint(method="POST", path=f"{_RUN}/abort", handler=abort_run, scope="runs:write", own_run=True),
)
