"""Logs of runs and builds as text: what there is, or followed while the job lives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.api.access import own_run, run_of_path
from gateway.api.call import Call, Endpoint
from gateway.api.log_text import AnsiStripper
from gateway.api.waiting import LOOK_AGAIN_SECS, until_ended
from gateway.core.errors import RecordNotFound
from gateway.core.model import Build, Run
from gateway.state.ports import StateUnavailable

Job = Run | Build


async def get_run_log(call: Call) -> Response:
    """The log of a run."""
    return await _log_of(call, await run_of_path(call))


async def get_build_log(call: Call) -> Response:
    """The log of a build, for its owner alone: also the builds of public Actors may print what is nobody's business."""
    return await _log_of(call, await _build_of_owner(call, call.path("build")))


async def get_log(call: Call) -> Response:
    """The log of a run or build, whichever has this id."""
    job_id = call.path("job")
    if call.is_limited_to_own_run:
        return await _log_of(call, await own_run(call, job_id))
    run = await call.records.run(job_id)
    if run is not None and run.user_id == call.principal.user_id:
        return await _log_of(call, run)
    return await _log_of(call, await _build_of_owner(call, job_id))


async def _build_of_owner(call: Call, build_id: str) -> Build:
    build = await call.records.build(build_id)
    if build is None or build.user_id != call.principal.user_id:
        raise RecordNotFound("Log")
    return build


async def _log_of(call: Call, job: Job) -> Response:
    headers = {"X-Accel-Buffering": "no", "Cache-Control": "no-store"}
    if call.query.flag("download"):
        headers["Content-Disposition"] = f'attachment; filename="{job.id}.log"'
    is_raw = call.query.flag("raw")
    if not call.query.flag("stream"):
        chunks = call.services.logs.read(job.id)
        if call.request.method != "HEAD":
            chunks = await _begun(chunks)
        return LogResponse(_cleaned(chunks, is_raw), None, headers)
    present = _Present(job)
    followed = call.services.logs.follow(job.id, lambda: present.has_ended)
    return LogResponse(_cleaned(followed, is_raw), partial(_keep_fresh, call, job, present), headers)


async def _begun(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """*chunks*, the first of which is there already: where none can be had, there is still a status to tell it by."""
    first = await anext(chunks, b"")

    async def all_of_them() -> AsyncIterator[bytes]:
        yield first
        async for chunk in chunks:
            yield chunk

    return all_of_them()


@dataclass(slots=True)
class _Present:
    """The job as it was last read; None once its record is gone."""

    job: Job | None

    @property
    def has_ended(self) -> bool:
        return self.job is None or self.job.status.is_terminal


async def _keep_fresh(call: Call, job: Job, present: _Present) -> None:
    """Keep *present* as it is in the records, until the job has ended or is gone."""

    async def read() -> Job:
        found = await (call.records.run(job.id) if isinstance(job, Run) else call.records.build(job.id))
        if found is None:
            raise RecordNotFound("Log")
        return found

    kind = "run" if isinstance(job, Run) else "build"
    while not present.has_ended:
        try:
            present.job = await until_ended(call.signals, read, kind, job.id, LOOK_AGAIN_SECS)
        except RecordNotFound:
            present.job = None
        except StateUnavailable:  # the log itself still comes; look again later
            await asyncio.sleep(LOOK_AGAIN_SECS)


async def _cleaned(chunks: AsyncIterator[bytes], is_raw: bool) -> AsyncIterator[bytes]:
    stripper = AnsiStripper()
    async for chunk in chunks:
        yield chunk if is_raw else stripper.feed(chunk)
    yield stripper.end()


class LogResponse(Response):
    """
    Sends *chunks* while *beside* runs next to it (None: nothing); both end when the log does or the client goes away.
    """

    media_type = "text/plain; charset=utf-8"

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        beside: Callable[[], Coroutine[Any, Any, None]] | None,
        headers: dict[str, str],
    ) -> None:
        super().__init__(headers=headers)
        del self.headers["content-length"]
        self._chunks = chunks
        self._beside = beside

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve it."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        async with asyncio.TaskGroup() as group:
            sender = group.create_task(self._send(send))
            helpers = [group.create_task(_cancel_on_disconnect(receive, sender))]
            if self._beside is not None:
                helpers.append(group.create_task(self._beside()))
            await asyncio.wait([sender])
            for helper in helpers:
                helper.cancel()

    async def _send(self, send: Send) -> None:
        async for chunk in self._chunks:
            if chunk:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _cancel_on_disconnect(receive: Receive, sender: asyncio.Task[None]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    sender.cancel()


ENDPOINTS = (
    Endpoint(method="GET", path="/logs/{job}", handler=get_log, scope="runs:read", own_run=True),
    Endpoint(method="GET", path="/actor-runs/{run}/log", handler=get_run_log, scope="runs:read", own_run=True),
    Endpoint(method="GET", path="/actors/{actor}/runs/{run}/log", handler=get_run_log, scope="runs:read", own_run=True),
    Endpoint(method="GET", path="/actor-builds/{build}/log", handler=get_build_log, scope="actors:read"),
)
