"""
Gives gateways parts of the live logs that lie in this autoscaler's data folder, as ``gateway.remote_logs`` asks for.

    GET /logs/{job}?start=N&size=M&wait=S     the bytes of the file from N on, as soon as they are more than M,
                                              or after S seconds; 404 where there is no such file (any more)

A part is bounded, and so is the number of requests that wait at once: the others are answered with what there is.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.live_logs import Logs
from gateway.log_proof import PROOF_HEADER, is_proof
from gateway.remote_logs import MAX_PART_BYTES
from gateway.secret_box import SecretBox

_MAX_WAIT_SECS = 10.0
_MAX_WAITING = 400
_LOOK_SECS = 0.1
_JOB = re.compile(r"[A-Za-z0-9]{1,64}")
_NUMBER = re.compile(r"\d{1,15}")
_SECS = re.compile(r"\d{1,3}(?:\.\d{1,6})?")


def log_routes(logs: Logs, box: SecretBox, *, now: Callable[[], float] = time.time) -> list[Route]:
    """For the application of an autoscaler's own port. *now* is seconds since 1970."""
    return [Route("/logs/{job}", _LogService(logs, box, now).serve)]


@dataclass(slots=True)
class _LogService:
    logs: Logs
    box: SecretBox
    now: Callable[[], float]
    waiting: int = 0

    async def serve(self, request: Request) -> Response:
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        if not is_proof(self.box, target, self.now(), request.headers.get(PROOF_HEADER, "")):
            return _refusal(401, "user-or-token-not-found", "The log service is for gateways with the same secret key.")
        job_id, asked = request.path_params["job"], request.query_params
        if not _JOB.fullmatch(job_id):
            return _refusal(404, "record-not-found", "There is no such live log.")
        start, size, wait = (asked.get(name, "0") for name in ("start", "size", "wait"))
        if not (_NUMBER.fullmatch(start) and _NUMBER.fullmatch(size) and _SECS.fullmatch(wait)):
            return _refusal(400, "invalid-input", "start, size and wait are numbers: bytes, bytes and seconds.")
        part = await self._part(self.logs.path(job_id), int(start), int(size), min(float(wait), _MAX_WAIT_SECS))
        if part is None:
            return _refusal(404, "record-not-found", "There is no such live log.")
        return Response(part, media_type="application/octet-stream")

    async def _part(self, path: Path, start: int, size: int, wait_secs: float) -> bytes | None:
        until = asyncio.get_running_loop().time() + (wait_secs if self.waiting < _MAX_WAITING else 0)
        self.waiting += 1
        try:
            while True:
                length = _length(path)
                # One that is shorter than what was read of it is another copy, which is told by what it holds.
                if length != start + size or asyncio.get_running_loop().time() >= until:
                    return _read(path, start)
                await asyncio.sleep(_LOOK_SECS)
        finally:
            self.waiting -= 1


def _length(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _read(path: Path, start: int) -> bytes | None:
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(start)
            return file.read(MAX_PART_BYTES)
    except FileNotFoundError:
        return None


def _refusal(status: int, kind: str, message: str) -> Response:
    return JSONResponse({"error": {"type": kind, "message": message}}, status_code=status)
