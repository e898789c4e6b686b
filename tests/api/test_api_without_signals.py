"""The API while the signals are gone: what concerns records goes on, and what was stored is not told as a failure."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from redis_server import free_port

from gateway.api.app import api_app
from gateway.builds import Builder
from gateway.core.lifecycle import RunStatus
from gateway.services import new_id
from gateway.state.signals_opening import open_signals


@pytest.fixture
async def cut_off(api: Any, bob: Any) -> AsyncIterator[Any]:
    """Bob at a gateway whose Redis is nowhere; he has an Actor with a build."""
    await bob.built_actor()
    services = api.services
    async with open_signals(f"redis://127.0.0.1:{free_port()}") as signals:
        state = replace(services.state, signals=signals)
        # Makes images, that is: leaves them to the autoscaler.
        builder = Builder(state, services.logs, services.box, now=api.clock.now, new_id=new_id, makes_images=True)
        app = api_app(replace(services, state=state, builder=builder))
        headers = {"Authorization": f"Bearer {bob.token}"}
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://api.localhost", headers=headers) as http:
            yield replace(bob, http=http)


async def test_starts_are_stored(cut_off: Any, api: Any) -> None:
    """Runs and builds, whoever hears of them; a wait for their end looks at the records instead of listening."""
    run = await cut_off.post("/actors/hello/runs?waitForFinish=1")
    assert run["status"] == "READY"
    build = await cut_off.post("/actors/hello/builds?version=0.1&waitForFinish=1")
    assert build["status"] == "READY"
    assert (await cut_off.get("/actor-runs?limit=1&desc=1"))["items"][0]["id"] == run["id"]
    actor = await cut_off.put("/actors/hello", json={"title": "New"})
    assert actor["title"] == "New"
    await api.supervise(run, status=RunStatus.RUNNING)
    assert (await cut_off.get(f"/actor-runs/{run['id']}"))["status"] == "RUNNING"
    await api.finish(run)
    assert (await cut_off.get(f"/actor-runs/{run['id']}?waitForFinish=60"))["status"] == "SUCCEEDED"


async def test_what_only_signals_know_is_not_to_be_had(cut_off: Any) -> None:
    """Where runs are and who waits is with the signals alone."""
    error = await cut_off.get("/greenroom/actors/hello/pools", 503)
    assert error["type"] == "service-unavailable"
