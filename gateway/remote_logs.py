"""
Logs whose file lies in another process's data folder: read from the autoscaler that leads, by its log service.

The service (``autoscaler.log_service``) is found by what autoscalers announce; each request carries a proof that is
made of the secret key, for this request and this time alone. What one request answers is bounded, and the next is made
when that was passed on, so that a slow reader slows this down and nothing piles up anywhere.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Protocol, Self

import httpx

from gateway.core.model import log_key
from gateway.log_cursor import LogCursor
from gateway.log_proof import PROOF_HEADER, prove
from gateway.secret_box import SecretBox
from gateway.state.ports import Blobs, Signals, StateUnavailable

MAX_PART_BYTES = 1024 * 1024

_log = logging.getLogger(__name__)

_PLACE = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):\d{1,5}")
_CONNECT_SECS = 2.0
_ANSWER_SECS = 5.0
_WAIT_SECS = 2.0
_AGAIN_SECS = 0.5
_PAUSE_SECS = 0.1
_AVOID_SECS = 5.0
_MAX_CONNECTIONS = 400
_KEPT_CONNECTIONS = 20
_LAST_TRY_SECS = 10.0  # for a new leader to take over, once the job has ended


class LogsElsewhere(Protocol):
    """Where the file of a live log may lie, other than in this process's data folder."""

    async def part(self, job_id: str, start: int, size: int, wait_secs: float) -> bytes | None:
        """
        What the file holds from *start* on, at least: as soon as that is more than *size* bytes, or after *wait_secs*.

        None where there is no such file. Raises StateUnavailable where nobody can tell.
        """
        ...


class RemoteLogs:
    """The log services of the autoscalers that are announced; ``async with`` owns the connections to them."""

    def __init__(
        self,
        signals: Signals,
        box: SecretBox,
        *,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._signals = signals
        self._box = box
        self._now = now
        self._clock = clock
        self._avoided: dict[str, float] = {}
        self._http = httpx.AsyncClient(
            # Each follower has a request of its own under way, and none fails for that many others have.
            limits=httpx.Limits(max_connections=_MAX_CONNECTIONS, max_keepalive_connections=_KEPT_CONNECTIONS),
            headers={"Accept-Encoding": "identity"},
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def part(self, job_id: str, start: int, size: int, wait_secs: float) -> bytes | None:
        """As LogsElsewhere: asks whoever says that it leads, until one answers."""
        why = "no autoscaler leads at the moment"
        for place in await self._places():
            try:
                found = await self._ask(place, job_id, start, size, wait_secs)
            except (httpx.HTTPError, StateUnavailable) as error:
                why = f"{place}: {error or type(error).__name__}"
                if place not in self._avoided:  # told once, however many ask again and again
                    _log.warning("the log service at %s", why)
                self._avoided[place] = self._clock() + _AVOID_SECS
            else:
                self._avoided.pop(place, None)
                return found
        raise StateUnavailable(f"the live log can't be read from the autoscaler ({why})")

    async def _places(self) -> Sequence[str]:
        """Those that say they lead; of two, as after the death of one, last the one that did not answer."""
        announced = await self._signals.announced("autoscaler")
        places = [facts.get("logs", "") for facts in announced.values() if facts.get("leads") == "1"]
        now = self._clock()
        self._avoided = {place: until for place, until in self._avoided.items() if until > now}
        return sorted((place for place in places if _PLACE.fullmatch(place)), key=lambda place: place in self._avoided)

    async def _ask(self, place: str, job_id: str, start: int, size: int, wait_secs: float) -> bytes | None:
        target = f"/logs/{job_id}?start={start}&size={size}&wait={wait_secs:g}"
        headers = {PROOF_HEADER: prove(self._box, target, self._now())}
        timeout = httpx.Timeout(_ANSWER_SECS + wait_secs, connect=_CONNECT_SECS, pool=None)
        async with self._http.stream("GET", f"http://{place}{target}", headers=headers, timeout=timeout) as answer:
            if answer.status_code == 404:
                return None
            if answer.status_code == 401:
                raise StateUnavailable("it has another secret key, or its clock is minutes apart from ours")
            if answer.status_code != 200:
                raise StateUnavailable(f"status {answer.status_code}")
            found = b""
            async for chunk in answer.aiter_raw():
                found += chunk
                if len(found) > MAX_PART_BYTES:
                    raise StateUnavailable("it answers more than it was asked for")
            return found


async def follow_elsewhere(
    elsewhere: LogsElsewhere, blobs: Blobs, job_id: str, has_ended: Callable[[], bool], *, is_patient: bool
) -> AsyncIterator[bytes]:
    """
    What there is of a log and what is added, until *has_ended* is true and all was read; the blob, where it is moved.

    While nobody can tell, *is_patient* waits for somebody, and ends some seconds after the job with what there is. Who
    is not reads what there is now; StateUnavailable is raised then, unless there is the blob.
    """
    cursor = LogCursor()
    ended_at: float | None = None
    while True:
        ended = has_ended()
        if ended and ended_at is None:
            ended_at = asyncio.get_running_loop().time()
        known = cursor.offset - cursor.start
        try:
            part = await elsewhere.part(job_id, cursor.start, known, 0 if ended else _WAIT_SECS)
        except StateUnavailable:
            has_blob = ended and await blobs.size(log_key(job_id)) is not None
            if not has_blob and not is_patient:
                raise
            is_over = ended_at is not None and asyncio.get_running_loop().time() - ended_at > _LAST_TRY_SECS
            if not has_blob and not is_over:
                await asyncio.sleep(_AGAIN_SECS)
                continue
            part = None
        if part is None:
            if ended:
                async for chunk in _rest_of_blob(blobs, job_id, cursor):
                    yield chunk
                return
            await asyncio.sleep(_AGAIN_SECS)
            continue
        fresh = cursor.fresh(part)
        if fresh and (chunk := cursor.take(fresh)):
            yield chunk
        if len(part) >= MAX_PART_BYTES:
            continue
        # All that there was a moment ago. A log that grows all the time is neither read for ever nor asked for at once.
        if fresh is not None and (not is_patient or (ended and not fresh)):
            yield cursor.end()
            return
        await asyncio.sleep(_PAUSE_SECS)


async def _rest_of_blob(blobs: Blobs, job_id: str, cursor: LogCursor) -> AsyncIterator[bytes]:
    key = log_key(job_id)
    size = await blobs.size(key)
    if size is not None:
        known = cursor.offset - cursor.start
        before = b"".join([chunk async for chunk in await _open(blobs, key, cursor.start, cursor.start + known, size)])
        cursor.fresh(before)  # or else the blob is of another copy, and read from its beginning
        async for chunk in await _open(blobs, key, cursor.offset, size, size):
            if new := cursor.take(chunk):
                yield new
    if end := cursor.end():
        yield end


async def _open(blobs: Blobs, key: str, start: int, end: int, size: int) -> AsyncIterator[bytes]:
    """The bytes from *start* up to *end*, of a blob of *size*, as far as there are any."""
    end = min(end, size)
    found = await blobs.open(key, start=start, end=end) if start < end else None
    return found if found is not None else _nothing()


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""
