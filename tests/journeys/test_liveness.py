"""The liveness probe, end to end: a run that hangs is replaced, and being asked keeps nobody awake."""

from __future__ import annotations

from pathlib import Path

import pytest
from journeys.greenroom import Greenroom, eventually

pytestmark = pytest.mark.slow

# Answers /alive with the status that stands in the file *status*, if there is one.
MAIN = """
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        status = 200
        if self.path == "/alive":
            print("asked whether alive", flush=True)
            if os.path.exists({status!r}):
                status = int(open({status!r}).read() or 500)
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


ThreadingHTTPServer(("127.0.0.1", int(os.environ["ACTOR_WEB_SERVER_PORT"])), Handler).serve_forever()
"""


async def test_a_run_that_is_not_alive_is_replaced(tmp_path: Path) -> None:
    """A minRuns of one: the sick run is wound down with the reason, another one serves in its place."""
    status = tmp_path / "status"
    standby = {"livenessPath": "/alive", "livenessEverySecs": 1, "minRuns": 1}
    async with Greenroom(tmp_path / "data", settings={"tick_secs": 0.2}) as greenroom:
        actor = await greenroom.probe("sick", standby, main=MAIN.format(status=str(status)))
        (first,) = await greenroom.serving(actor, 1)
        await eventually(lambda: _was_asked(greenroom, first), what="the first question")
        status.write_text("503")
        run = await greenroom.ended(first, within_secs=30)
        status.unlink()
        assert run["status"] == "SUCCEEDED"
        assert "3 times in a row it was not alive: GET /alive: answered 503" in await greenroom.log_of(first)
        (second,) = await greenroom.serving(actor, 1)
        assert second != first


async def test_being_asked_is_no_use(tmp_path: Path) -> None:
    """A run that is asked every second goes idle all the same."""
    standby = {"livenessPath": "/alive", "livenessEverySecs": 1, "idleTimeoutSecs": 3}
    async with Greenroom(tmp_path / "data") as greenroom:
        actor = await greenroom.probe("asked", standby, main=MAIN.format(status=str(tmp_path / "none")))
        assert (await greenroom.call("asked")).status_code == 200
        (run,) = await greenroom.runs_of(actor)
        ended = await greenroom.ended(run["id"])
        assert ended["status"] == "SUCCEEDED"
        assert "idle for 3 s" in await greenroom.log_of(run["id"])
        assert (await greenroom.log_of(run["id"])).count("asked whether alive") >= 2


async def _was_asked(greenroom: Greenroom, run_id: str) -> bool:
    return "asked whether alive" in await greenroom.log_of(run_id)
