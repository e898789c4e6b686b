"""
Starts runs: reads what they are started with, stores them with their input, and signals them; the supervisor acts.

Nothing is stored before all is known to be right, and once a run is stored no answer makes a client start another.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from starlette.responses import Response

from gateway.api.access import visible_actor
from gateway.api.call import Call, Endpoint, answer
from gateway.api.idempotency import StartKey
from gateway.api.meta import request_meta, request_origin
from gateway.api.run_build import asked_build, asked_tag
from gateway.api.run_input import GivenInput, encrypted, given_input
from gateway.api.run_options import refuse_unknown_powers, run_options
from gateway.api.run_quota import refuse_beyond_quota
from gateway.api.views import run_view
from gateway.api.waiting import awaited_run
from gateway.core.errors import NameNotUnique
from gateway.core.ids import ID_BYTES
from gateway.core.model import Actor, Build, Run
from gateway.core.storages import MAX_INLINE_RECORD_BYTES, KeyValueRecord
from gateway.new_run import RANDOM_BYTES, bare_run, store_run
from gateway.run_input import input_record
from gateway.state.ports import StateUnavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A run that is stored; *is_new* is False where the ``Idempotency-Key`` has started it before."""

    run: Run
    is_new: bool


async def start_run(call: Call) -> Response:
    """
    A new run of one's own or a public Actor; it belongs to the caller. 201, or 200 with the earlier run where the
    ``Idempotency-Key`` has started one. A body is the run's input.
    """
    actor = await visible_actor(call)
    wait_secs = call.query.wait_secs()
    started = await begin_run(call, actor)
    status = 201 if started.is_new else 200
    try:
        run = await awaited_run(call.records, call.signals, started.run.id, wait_secs)
    except StateUnavailable:
        # The run is stored, and a 5xx would make clients start another.
        run = started.run
    return answer(run_view(run, call.services.urls), status)


async def begin_run(call: Call, actor: Actor) -> Started:
    """Store and signal the run that *call* asks for, or find the one that its ``Idempotency-Key`` has started."""
    key = _start_key(call)
    earlier = await key.earlier_run(call.records, actor.id) if key is not None else None
    if earlier is not None:
        return Started(run=earlier, is_new=False)
    refuse_unknown_powers(call.query)
    build = await asked_build(call, actor)
    run = _new_run(call, actor, build, key)
    await refuse_beyond_quota(call, run)
    given = await given_input(call, build)
    contents: tuple[KeyValueRecord, ...] = ()
    if given is not None:
        run, given = await encrypted(call, run, given)
        run = replace(run, stats={**run.stats, "inputBodyLen": given.body_bytes})
        contents = (await _stored_input(call, run, given),)
    try:
        await store_run(call.records, run, call.services.box, call.services.new_id(), contents)
    except NameNotUnique:
        await _forget_input(call, contents)
        # A start with the same key was faster by a moment.
        earlier = await key.earlier_run(call.records, actor.id) if key is not None else None
        if earlier is None:
            raise
        return Started(run=earlier, is_new=False)
    await call.tell("run", run.id)
    return Started(run=run, is_new=True)


def _start_key(call: Call) -> StartKey | None:
    key = call.request.headers.get("idempotency-key")
    if key is None:
        return None
    return StartKey(call.services.box, call.principal.user_id, key, call.services.now())


def _new_run(call: Call, actor: Actor, build: Build, key: StartKey | None) -> Run:
    random_bytes = call.services.random_bytes(RANDOM_BYTES)
    if key is not None:
        random_bytes = key.id_bytes + random_bytes[ID_BYTES:]
    return bare_run(
        build=build,
        user_id=call.principal.user_id,
        origin=request_origin(call),
        options=run_options(call.query, asked_tag(call, actor), actor.default_run_options, build.definition),
        now=call.services.now(),
        random_bytes=random_bytes,
        meta=request_meta(call),
        parent_run_id=call.principal.run_id,
    )


async def _stored_input(call: Call, run: Run, given: GivenInput) -> KeyValueRecord:
    """A large input is written before the run that names it."""
    blob = None
    if len(given.content) > MAX_INLINE_RECORD_BYTES:
        blob = f"key-value-stores/{run.default_key_value_store_id}/{call.services.new_id()}"
        await call.services.state.blobs.put(blob, given.content)
    return input_record(run, given.content, given.content_type, blob=blob)


async def _forget_input(call: Call, contents: tuple[KeyValueRecord, ...]) -> None:
    for record in contents:
        if record.blob is not None:
            await call.services.state.blobs.delete(record.blob)


ENDPOINTS = (Endpoint(method="POST", path="/actors/{actor}/runs", handler=start_run, scope="actors:run"),)
