"""For all tests: nothing of this machine's own settings, and in CI no test that is left out unnoticed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# Whoever runs the tests may have a Greenroom of his own, with variables and a settings file.
for _name in [name for name in os.environ if name.startswith("GREENROOM_")]:
    del os.environ[_name]
os.environ["GREENROOM_CONFIG"] = os.devnull

# Jobs in the background of a shell ignore Ctrl-C, and so would all that they start, which some tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no failure; what is slow is caught by the timeout of pytest itself.
settings.register_profile("greenroom", deadline=None)
settings.load_profile("greenroom")


def may_leave_out() -> bool:
    """Whether a skipped test is fine: everywhere but in CI."""
    return os.environ.get("CI", "").lower() not in ("1", "true", "yes")


def _fail_where_skipped(report: Any) -> None:
    if report.skipped and not hasattr(report, "wasxfail") and not may_leave_out():
        report.outcome = "failed"
        report.longrepr = f"left out, and in CI nothing may be: {report.longrepr}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    """In CI a skipped test has failed."""
    report = yield
    _fail_where_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, Any]:
    """In CI a skipped module has failed."""
    report = yield
    _fail_where_skipped(report)
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever takes a Docker engine is slow."""
    for item in items:
        if "docker_host" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def docker_host() -> str:
    """A real Docker engine with the base image ``greenroom-tests:base``; it is also in ``DOCKER_HOST``."""
    import docker_engine

    try:
        host = docker_engine.up()
    except docker_engine.NoEngine as error:
        pytest.skip(str(error))
    os.environ["DOCKER_HOST"] = host
    return host


@pytest.fixture
def docker_data(docker_host: str, tmp_path: Path) -> Iterator[Path]:
    """A data folder for a Greenroom with ``launcher=docker``; what that leaves in the engine is removed afterwards."""
    import docker_engine

    from gateway.installation import installation_of

    data = tmp_path / "data"
    yield data
    if (data / "installation").exists():
        docker_engine.remove_all(docker_host, installation_of(data).label)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A real Redis that this worker's tests share, each in a namespace of its own; who breaks one starts another."""
    import redis_server

    try:
        redis_server.find_redis()
    except redis_server.NoRedis as error:
        pytest.skip(str(error))
    with redis_server.running(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The same with Valkey in the place of Redis."""
    import redis_server

    with redis_server.running(tmp_path_factory.mktemp("valkey"), program=redis_server.find_valkey()) as server:
        yield server
