"""
Runs: start, list, get, wait, update, abort, delete.

This room only writes what is wanted (a READY run, the wish to abort) and signals it; the supervisor acts on it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from starlette.responses import Response

from gateway.api.access import run_of_path, statuses, visible_actor
from gateway.api.call import Call, Endpoint, answer, no_content
from gateway.api.errors import BuildNotFound, CannotRemoveRunningRun, UnknownBuildTag
from gateway.api.idempotency import StartKey
from gateway.api.meta import request_meta, request_origin
from gateway.api.pagination import listing, page_of
from gateway.api.run_changes import run_update
from gateway.api.run_options import run_options
from gateway.api.views import run_list_item, run_view
from gateway.api.waiting import until_ended
from gateway.core.errors import NameNotUnique, RecordNotFound
from gateway.core.ids import ID_BYTES
from gateway.core.lifecycle import RunStatus
from gateway.core.model import AbortWish, Actor, Build, Page, Run
from gateway.core.run_changes import aborting
from gateway.new_run import bare_run, store_run
from gateway.state.changes import change_run
from gateway.state.ports import StateUnavailable

_RANDOM_BYTES = 80


def input_key(key_value_store_id: str) -> str:
    """The blob of a run's input."""
    return f"key-value-stores/{key_value_store_id}/INPUT"


async def start_run(call: Call) -> Response:
    """
    A new run of one's own or a public Actor; it belongs to the caller. 201, or 200 with the earlier run where the
    ``Idempotency-Key`` has started one.

    A body is the run's input: it is stored, before the run can start, as the blob ``input_key`` with its content type
    in the run's ``meta``. Serving it to the Actor belongs to the key-value stores.
    """
    actor = await visible_actor(call)
    wait_secs = call.query.wait_secs()
    key = _start_key(call)
    earlier = await key.earlier_run(call.records, actor.id) if key is not None else None
    if earlier is not None:
        return await _shown(call, earlier.id, wait_secs, 200)
    run = await _new_run(call, actor, key)
    body = await call.body()
    if body:
        content_type = call.request.headers.get("content-type", "application/octet-stream")
        run = replace(
            run,
            meta={**run.meta, "inputContentType": content_type},
            stats={**run.stats, "inputBodyLen": len(body)},
        )
        await call.services.state.blobs.put(input_key(run.default_key_value_store_id), body)
    try:
        await store_run(call.records, run, call.services.box, call.services.new_id())
    except NameNotUnique:
        # A start with the same key was faster by a moment.
        earlier = await key.earlier_run(call.records, actor.id) if key is not None else None
        if earlier is None:
            raise
        await call.services.state.blobs.delete(input_key(run.default_key_value_store_id))
        return await _shown(call, earlier.id, wait_secs, 200)
    await call.tell("run", run.id)
    try:
        return await _shown(call, run.id, wait_secs, 201)
    except StateUnavailable:
        # The run is stored, and a 5xx would make clients start another.
        return answer(run_view(run, call.services.urls), 201)


def _start_key(call: Call) -> StartKey | None:
    key = call.request.headers.get("idempotency-key")
    if key is None:
        return None
    return StartKey(call.services.box, call.principal.user_id, key, call.services.now())


async def _new_run(call: Call, actor: Actor, key: StartKey | None) -> Run:
    wanted = call.query.text("build") or actor.default_run_options.build
    build = await _build(call, actor, wanted)
    random_bytes = call.services.random_bytes(_RANDOM_BYTES)
    if key is not None:
        random_bytes = key.id_bytes + random_bytes[ID_BYTES:]
    return bare_run(
        build=build,
        user_id=call.principal.user_id,
        origin=request_origin(call),
        options=run_options(call.query, wanted, actor.default_run_options, build.definition),
        now=call.services.now(),
        random_bytes=random_bytes,
        meta=request_meta(call),
    )


async def _build(call: Call, actor: Actor, wanted: str) -> Build:
    """The build that *wanted* names, a tag or a number. Raises UnknownBuildTag, BuildNotFound where none is yet."""
    tagged = actor.tagged_builds.get(wanted)
    if tagged is not None:
        build = await call.records.build(tagged.build_id)
    else:
        build = await call.records.build_by_number(actor.id, wanted)
    if build is not None and build.status is RunStatus.SUCCEEDED:
        return build
    if not (await call.records.list_builds(None, actor.id, Page(limit=1))).total:
        raise BuildNotFound("This Actor has no build yet: build one of its versions first.")
    known = ", ".join(sorted(actor.tagged_builds)) or "none"
    raise UnknownBuildTag(
        f"This Actor has no finished build with the tag or number '{wanted}'. Its tags: {known}.",
        data={"field": "build"},
    )


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
    """One run, waited for up to ``waitForFinish``."""
    run = await run_of_path(call)
    return await _shown(call, run.id, call.query.wait_secs(), 200)


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
    """A finished run with its log and input."""
    run = await run_of_path(call)
    if not run.status.is_terminal:
        raise CannotRemoveRunningRun
    await call.records.delete_run(run.id)
    await call.services.logs.delete(run.id)
    await call.services.state.blobs.delete(input_key(run.default_key_value_store_id))
    await call.tell("run", run.id)
    return no_content()


async def _shown(call: Call, run_id: str, wait_secs: int, status: int) -> Response:
    async def read() -> Run:
        run = await call.records.run(run_id)
        if run is None:
            raise RecordNotFound("Actor run")
        return run

    run = await until_ended(call.signals, read, "run", run_id, wait_secs)
    return answer(run_view(run, call.services.urls), status)


_OF_ACTOR = "/actors/{actor}/runs"
_RUN_OF_ACTOR = "/actors/{actor}/runs/{run}"
_RUN = "/actor-runs/{run}"

ENDPOINTS = (
    Endpoint(method="POST", path=_OF_ACTOR, handler=start_run, scope="actors:run"),
    Endpoint(method="GET", path=_OF_ACTOR, handler=list_runs_of_actor, scope="runs:read"),
    Endpoint(method="GET", path=_RUN_OF_ACTOR, handler=get_run, scope="runs:read", own_run=True),
    Endpoint(method="POST", path=f"{_RUN_OF_ACTOR}/abort", handler=abort_run, scope="runs:write", own_run=True),
    Endpoint(method="GET", path="/actor-runs", handler=list_runs, scope="runs:read"),
    Endpoint(method="GET", path=_RUN, handler=get_run, scope="runs:read", own_run=True, after_end=True),
    Endpoint(method="PUT", path=_RUN, handler=update_run, scope="runs:write", own_run=True, after_end=True),
    Endpoint(method="DELETE", path=_RUN, handler=delete_run, scope="runs:write"),
    Endpoint(method="POST", path=f"{_RUN}/abort", handler=abort_run, scope="runs:write", own_run=True),
)
