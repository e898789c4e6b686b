"""The records' server goes away, or freezes, and comes back: what is warm is served, and all else is told."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import postgres_server
import pytest
from journeys.greenroom import Greenroom, error_of

pytestmark = pytest.mark.slow

_OUTAGE_SECS = 12.0


@pytest.fixture
def postgres() -> Iterator[postgres_server.PostgresServer]:
    """A server that the test may stop."""
    with postgres_server.running() as server:
        yield server


@contextlib.contextmanager
def gone(server: postgres_server.PostgresServer) -> Iterator[None]:
    """All its connections break, and no new one is taken; in the end it is there again."""
    server.stop()
    try:
        yield
    finally:
        server.start()


@pytest.mark.parametrize("trouble", ["gone", "frozen"])
async def test_warm_traffic_goes_on(tmp_path: Path, postgres: postgres_server.PostgresServer, trouble: str) -> None:
    """
    No warm request fails and none waits long; the API and a wake say 503 in bounded time; afterwards all is well.

    Nothing that was answered before is lost, and the run that served all along is still the only one.
    """
    environment = {"GREENROOM_RECORDS_URL": postgres.url(postgres.create_database())}
    settings = {"token_cache_secs": 2, "pick_timeout_secs": 5}
    async with Greenroom(tmp_path / "data", settings=settings, environment=environment) as greenroom:
        warm = await greenroom.probe("warm")
        await greenroom.probe("cold")
        assert (await greenroom.call("warm")).status_code == 200
        (run_id,) = await greenroom.serving(warm, 1)

        answers: list[tuple[int, float]] = []
        is_over = asyncio.Event()

        async def keep_asking() -> None:
            while not is_over.is_set():
                began = time.monotonic()
                answer = await greenroom.call("warm")
                answers.append((answer.status_code, time.monotonic() - began))
                await asyncio.sleep(0.05)

        async with asyncio.TaskGroup() as group:
            group.create_task(keep_asking())
            with gone(postgres) if trouble == "gone" else postgres.paused():
                until = time.monotonic() + _OUTAGE_SECS
                began = time.monotonic()
                refused = await greenroom.api("POST", "/datasets?name=while-it-is-away")
                assert error_of(refused)[0] == 503, refused.text
                assert "postgres" not in refused.text.lower().replace("postgresql", ""), "no user, no password"
                assert time.monotonic() - began < 30
                waited = await greenroom.call("cold")
                assert error_of(waited)[0] == 503, waited.text
                assert time.monotonic() - began < 60
                await asyncio.sleep(until - time.monotonic())
            made = await greenroom.api("POST", "/datasets?name=after-it-came-back")
            assert made.status_code == 201, made.text
            assert (await greenroom.call("cold")).status_code == 200
            is_over.set()
        assert {status for status, _ in answers} == {200}
        # After two seconds a token is asked about, for a second at most, and then believed for two more.
        assert max(secs for _, secs in answers) < 8
        assert await greenroom.serving(warm, 1) == [run_id]
        assert "secret-of-postgres" not in greenroom.log
