"""
Starts a run, waits for its end and answers with its result, for callers that want one call for all.

The run is not tied to the call: it goes on when the time is up, and when the caller goes away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.access import visible_actor
from gateway.api.call import Call, Endpoint
from gateway.api.dataset_items import items_answer
from gateway.api.errors import RunFailed, RunTimeoutExceeded
from gateway.api.item_query import items_query
from gateway.api.key_value_records import record_answer
from gateway.api.run_start import begin_run
from gateway.api.waiting import awaited_run
from gateway.core.errors import MethodNotAllowed, RecordNotFound
from gateway.core.lifecycle import RunStatus
from gateway.core.model import Run, StorageKind
from gateway.core.storages import checked_record_key
from gateway.state.ports import StateUnavailable

_OUTPUT = "OUTPUT"
_CLIENT_GONE = 499

Result = Callable[[Run], Awaitable[Response]]


async def run_sync(call: Call) -> Response:
    """The record ``outputRecordKey`` (OUTPUT) of a new run, byte by byte, when it has succeeded."""
    key = checked_record_key(call.query.text("outputRecordKey") or _OUTPUT)

    async def output(run: Run) -> Response:
        return await record_answer(call, run.default_key_value_store_id, key)

    return await _result(call, output)


async def run_sync_items(call: Call) -> Response:
    """The items of a new run's default dataset, as the query wants them, when it has succeeded."""
    items_query(call.query)  # what is wrong there is told before anything is started

    async def items(run: Run) -> Response:
        dataset = await call.storages.storage(StorageKind.DATASET, run.default_dataset_id)
        if dataset is None:
            raise RecordNotFound("Dataset")
        return await items_answer(call, dataset)

    return await _result(call, items)


async def _result(call: Call, result: Result) -> Response:
    """Raises RunTimeoutExceeded, RunFailed; and no error of the stores, since clients would repeat the call."""
    actor = await visible_actor(call)
    if call.request.method == "HEAD":
        raise MethodNotAllowed("HEAD starts nothing: use POST, or GET for a run without an input.")
    started = (await begin_run(call, actor)).run
    limit_secs = call.services.settings.run_sync_timeout_secs
    try:
        wait = partial(awaited_run, call.records, call.signals, started.id, limit_secs)
        run = await _unless_gone(call.request, wait)
        if run is None:
            return Response(status_code=_CLIENT_GONE)
        if not run.status.is_terminal:
            raise RunTimeoutExceeded(
                run.id, f"The Actor run exceeded the timeout of {limit_secs:g} seconds for this API endpoint."
            )
        if run.status is not RunStatus.SUCCEEDED:
            raise RunFailed(run.id, run.status)
        response = await result(run)
    except StateUnavailable as error:
        raise RunTimeoutExceeded(started.id, "The result of the run can't be read at the moment.") from error
    if response.status_code == 200 and call.request.method == "POST":
        response.status_code = 201
    return response


async def _unless_gone(request: Request, wait: Callable[[], Awaitable[Run]]) -> Run | None:
    """What *wait* comes to; None as soon as the caller has gone away."""
    problem: Exception | None = None
    run: Run | None = None

    async def waiting() -> None:
        nonlocal problem, run
        try:
            run = await wait()
        except Exception as error:  # kept aside: a TaskGroup would wrap it
            problem = error

    async with asyncio.TaskGroup() as group:
        waiter = group.create_task(waiting())
        leaver = group.create_task(_until_gone(request))
        await asyncio.wait([waiter, leaver], return_when=asyncio.FIRST_COMPLETED)
        waiter.cancel()
        leaver.cancel()
    if problem is not None:
        raise problem
    return run


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


_SYNC = "/actors/{actor}/run-sync"
_SYNC_ITEMS = "/actors/{actor}/run-sync-get-dataset-items"

ENDPOINTS = (
    Endpoint(method="POST", path=_SYNC, handler=run_sync, scope="actors:run"),
    Endpoint(method="GET", path=_SYNC, handler=run_sync, scope="actors:run"),
    Endpoint(method="POST", path=_SYNC_ITEMS, handler=run_sync_items, scope="actors:run"),
    Endpoint(method="GET", path=_SYNC_ITEMS, handler=run_sync_items, scope="actors:run"),
)
