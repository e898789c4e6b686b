"""Ten thousand Actors that each have a run, as a gateway finds them at its start."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, select

from gateway.core.lifecycle import Readiness
from gateway.core.model import Address
from gateway.core.standby import Generation, PoolKey
from gateway.state.ports import LEADER, RunRoute, Signals
from gateway.state.signals_opening import open_signals
from gateway.state.tables import actors
from loadtests.compare_hosts import MANY_HOSTS, add_hosts
from loadtests.compare_targets import NotMeasured

_LEAD_SECS = 15.0
_LEASE_SECS = 30.0


class _Run(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@contextlib.contextmanager
def add_routes(signals_url: str, data: Path, pattern_name: str) -> Iterator[str]:
    """
    The Actors are written to the records, each with a route of a run that serves, all by one server of ours.

    Nobody else may lead meanwhile: who leads has the whole of the routes. Yields the live-view host of the last one.
    """
    add_hosts(data, MANY_HOSTS, pattern_name)
    engine = create_engine(f"sqlite:///{data}/records.sqlite3")
    with engine.connect() as connection:
        found = connection.execute(select(actors.c.id, actors.c.user_id).where(actors.c.name.like("many-%"))).all()
    engine.dispose()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Run) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            asyncio.run(_publish(signals_url, [(row.id, row.user_id) for row in found], server.server_port))
            yield f"{_label(len(found) - 1)}.runs.localhost"
        finally:
            server.shutdown()
            thread.join()


def _label(number: int) -> str:
    return f"many{number:022}"


async def _publish(signals_url: str, found: list[tuple[str, str]], port: int) -> None:
    async with open_signals(signals_url) as signals:
        await _lead(signals)
        for number, (actor_id, user_id) in enumerate(found):
            if number % 100 == 0:
                await _lead(signals)
            await signals.put_route(
                RunRoute(
                    run_id=f"manyRun{number:010}",
                    actor_id=actor_id,
                    user_id=user_id,
                    live_view_label=_label(number),
                    readiness=Readiness.SERVING,
                    pool=PoolKey(target_id=actor_id, user_id=user_id),
                    generation=Generation(build_id="manyBuildOfAllOf", memory_mbytes=1024),
                    address=Address(host="127.0.0.1", port=port),
                )
            )
        await signals.publish_routes()


async def _lead(signals: Signals) -> None:
    deadline = asyncio.get_running_loop().time() + _LEAD_SECS
    while await signals.lead(LEADER, "load-test", ttl_secs=_LEASE_SECS) is None:
        if asyncio.get_running_loop().time() > deadline:
            raise NotMeasured("somebody else leads")
        await asyncio.sleep(0.1)
