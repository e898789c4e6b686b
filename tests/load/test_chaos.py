"""The house of the chaos test, as a whole: it stands, its probers find nothing wrong, and what they counted is told."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from loadtests.chaos_servers import Balancer, PostgresServer, RedisServer, listens
from loadtests.compare_targets import NotMeasured

ROOT = Path(__file__).resolve().parents[2]


def chaos(tmp_path: Path, *arguments: str) -> tuple[int, dict]:
    """The exit code of a run, and what it told."""
    told = tmp_path / "figures"
    command = [sys.executable, "-m", "loadtests.chaos", "--quick", "--json", str(told), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170)
    assert told.exists(), done.stdout + done.stderr
    return done.returncode, json.loads(told.read_text())


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_calm_house_keeps_every_promise(tmp_path):
    """Ten thousand requests at a limit of one over three gateways, wakes and writes: no failure, and nothing twice."""
    _, told = chaos(tmp_path, "--only", "faults", "--faults", "calm")
    if any("is not installed" in why for why in told["missing"].values()):
        pytest.skip(next(iter(told["missing"].values())))
    figures = {name: figure["value"] for name, figure in told["figures"].items()}
    assert figures["limit_requests"] >= 10_000, told
    for promise in ("limit_violations", "double_starts", "lost_writes", "broken_invariants", "never_well_again"):
        assert figures[promise] == 0, told["raw"]
    (calm,) = told["raw"]["chaos"]
    assert all(calm["requests"].values())
    assert not any(calm["failed"].values())


def test_faults_that_nobody_knows_are_refused(tmp_path):
    """With the names of those that there are."""
    command = [sys.executable, "-m", "loadtests.chaos", "--faults", "meteor"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "no such fault: meteor" in done.stderr


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that servers of other users get into, which those of pytest are not."""
    with tempfile.TemporaryDirectory(prefix="greenroom-chaos-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def made(server: Callable[[Path], Any], folder: Path) -> Any:
    """A server, where its program is installed."""
    try:
        return server(folder / "server")
    except NotMeasured as error:
        if "is not installed" in str(error):
            pytest.skip(str(error))
        raise


def test_redis_forgets_when_it_is_killed(folder):
    """And counts what it was asked."""
    redis = made(RedisServer, folder)
    try:
        redis.start()
        assert redis.ask("SET", "name", "value") == "+OK"
        assert redis.ask("GET", "name") == "value"
        assert redis.commands()["get"] == 1
        redis.program.kill()
        assert not listens(redis.port)
        redis.start()
        assert redis.ask("EXISTS", "name") == ":0"
    finally:
        redis.program.kill()


def balancer(folder: Path) -> Balancer:
    return Balancer(folder, {"one": 1})


@pytest.mark.parametrize(
    "server", [pytest.param(PostgresServer, id="postgresql"), pytest.param(balancer, id="haproxy")]
)  # fmt: skip
def test_servers_come_and_go(folder, server):
    """Started, stopped, and started again on the same port."""
    there = made(server, folder)
    try:
        for _ in range(2):
            there.start()
            assert listens(there.port)
            there.program.stop()
            assert not listens(there.port)
    finally:
        there.program.kill()
